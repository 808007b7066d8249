// Command gosdk is a server on github.com/modelcontextprotocol/go-sdk: stateful and legacy, or with -stateless of both eras. With -stdio it speaks over its standard input and output. With -extra it has so many tools that its list comes in pages.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"interop/watch"
)

func main() {
	port := flag.String("port", "", "port on 127.0.0.1")
	stdio := flag.Bool("stdio", false, "speak over standard input and output")
	name := flag.String("name", "gosdk", "what stands in every URI")
	stateless := flag.Bool("stateless", false, "keep no sessions; this SDK needs that for the modern era")
	extra := flag.Int("extra", 0, "how many tools to offer in place of the usual ones")
	flag.Parse()

	s := mcp.NewServer(&mcp.Implementation{Name: "interop-go-sdk", Version: "1"}, &mcp.ServerOptions{
		CompletionHandler:  complete,
		SubscribeHandler:   func(context.Context, *mcp.SubscribeRequest) error { return nil },
		UnsubscribeHandler: func(context.Context, *mcp.UnsubscribeRequest) error { return nil },
	})
	if *extra > 0 {
		addManyTools(s, *extra)
	} else {
		addTools(s)
		addFeatures(s, *name)
		addQuestions(s)
	}
	if *stdio {
		if err := s.Run(context.Background(), &mcp.StdioTransport{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/mcp", mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s },
		&mcp.StreamableHTTPOptions{Stateless: *stateless, PropagateRequestCancellation: true}))
	watch.Serve(*port, mux)
}

func addManyTools(s *mcp.Server, count int) {
	for n := 1; n <= count; n++ {
		name := fmt.Sprintf("tool_%04d", n)
		mcp.AddTool(s, &mcp.Tool{Name: name, Description: "Says its own name and the message back."},
			func(_ context.Context, _ *mcp.CallToolRequest, in message) (*mcp.CallToolResult, any, error) {
				return text(name + ": " + in.Message), nil, nil
			})
	}
}

func addTools(s *mcp.Server) {
	mcp.AddTool(s, &mcp.Tool{Name: "echo", Description: "Says the message back."}, echo)
	mcp.AddTool(s, &mcp.Tool{Name: "add", Description: "Adds two numbers."}, add)
	mcp.AddTool(s, &mcp.Tool{Name: "slow", Description: "Takes 100 ms and says the tag back."}, slow)
	mcp.AddTool(s, &mcp.Tool{Name: "progress", Description: "Reports its progress step by step."}, progress)
	mcp.AddTool(s, &mcp.Tool{Name: "fail", Description: "Always fails."}, fail)
	mcp.AddTool(s, &mcp.Tool{Name: "long", Description: "Takes long, and records how it ended."}, long)
}

type message struct {
	Message string `json:"message"`
}

type numbers struct {
	A int `json:"a"`
	B int `json:"b"`
}

type sum struct {
	Result int `json:"result"`
}

type tagged struct {
	Tag string `json:"tag"`
}

type stepped struct {
	Steps      int `json:"steps"`
	IntervalMs int `json:"interval_ms"`
}

type lasting struct {
	Seconds float64 `json:"seconds"`
	Tag     string  `json:"tag"`
}

func text(s string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: s}}}
}

func echo(_ context.Context, _ *mcp.CallToolRequest, in message) (*mcp.CallToolResult, any, error) {
	return text(in.Message), nil, nil
}

func add(_ context.Context, _ *mcp.CallToolRequest, in numbers) (*mcp.CallToolResult, sum, error) {
	return nil, sum{in.A + in.B}, nil
}

func slow(_ context.Context, _ *mcp.CallToolRequest, in tagged) (*mcp.CallToolResult, any, error) {
	time.Sleep(100 * time.Millisecond)
	return text(in.Tag), nil, nil
}

func progress(ctx context.Context, r *mcp.CallToolRequest, in stepped) (*mcp.CallToolResult, any, error) {
	for step := 1; step <= in.Steps; step++ {
		if token := r.Params.GetProgressToken(); token != nil {
			err := r.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
				ProgressToken: token,
				Progress:      float64(step),
				Total:         float64(in.Steps),
				Message:       fmt.Sprintf("step %d", step),
			})
			if err != nil {
				return nil, nil, err
			}
		}
		time.Sleep(time.Duration(in.IntervalMs) * time.Millisecond)
	}
	return text(fmt.Sprintf("%d steps", in.Steps)), nil, nil
}

func fail(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
	return nil, nil, errors.New("deliberate failure")
}

func long(ctx context.Context, _ *mcp.CallToolRequest, in lasting) (*mcp.CallToolResult, any, error) {
	watch.Record("started", in.Tag)
	select {
	case <-time.After(time.Duration(in.Seconds * float64(time.Second))):
		watch.Record("finished", in.Tag)
		return text(in.Tag), nil, nil
	case <-ctx.Done():
		watch.Record("cancelled", in.Tag)
		return nil, nil, ctx.Err()
	}
}
