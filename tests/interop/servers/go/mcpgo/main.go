// Command mcpgo is a server on github.com/mark3labs/mcp-go, in one of its three session modes.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"interop/watch"
)

func main() {
	port := flag.String("port", "", "port on 127.0.0.1")
	name := flag.String("name", "mcpgo", "what stands in every URI")
	mode := flag.String("mode", "default", "stateless, default or stateful")
	flag.Parse()

	watchers := newWatchers()
	s := server.NewMCPServer("interop-mcp-go", "1",
		server.WithToolCapabilities(true), server.WithPromptCapabilities(true), server.WithResourceCapabilities(true, true),
		server.WithLogging(), server.WithElicitation(), server.WithRoots(), server.WithCompletions(),
		server.WithPromptCompletionProvider(people{}), server.WithResourceCompletionProvider(items{}),
		server.WithHooks(watchers.hooks()))
	s.EnableSampling()
	addTools(s)
	addFeatures(s, *name, watchers)
	addQuestions(s)
	mux := http.NewServeMux()
	mux.Handle("/mcp", server.NewStreamableHTTPServer(s, sessions(*mode)...))
	watch.Serve(*port, mux)
}

func sessions(mode string) []server.StreamableHTTPOption {
	switch mode {
	case "stateless":
		return []server.StreamableHTTPOption{server.WithStateLess(true)}
	case "stateful":
		return []server.StreamableHTTPOption{server.WithStateful(true)}
	case "default":
		return nil
	}
	log.Fatalf("unknown mode %q", mode)
	return nil
}

func addTools(s *server.MCPServer) {
	s.AddTool(mcp.NewTool("echo", mcp.WithDescription("Says the message back."), mcp.WithString("message", mcp.Required())), echo)
	s.AddTool(mcp.NewTool("add", mcp.WithDescription("Adds two numbers."),
		mcp.WithNumber("a", mcp.Required()), mcp.WithNumber("b", mcp.Required())), add)
	s.AddTool(mcp.NewTool("slow", mcp.WithDescription("Takes 100 ms and says the tag back."), mcp.WithString("tag", mcp.Required())), slow)
	s.AddTool(mcp.NewTool("progress", mcp.WithDescription("Reports its progress step by step."),
		mcp.WithNumber("steps", mcp.Required()), mcp.WithNumber("interval_ms", mcp.Required())), progress)
	s.AddTool(mcp.NewTool("fail", mcp.WithDescription("Always fails.")), fail)
	s.AddTool(mcp.NewTool("long", mcp.WithDescription("Takes long, and records how it ended."),
		mcp.WithNumber("seconds", mcp.Required()), mcp.WithString("tag", mcp.Required())), long)
}

func echo(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	return mcp.NewToolResultText(r.GetString("message", "")), nil
}

func add(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	return mcp.NewToolResultText(fmt.Sprint(r.GetInt("a", 0) + r.GetInt("b", 0))), nil
}

func slow(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	time.Sleep(100 * time.Millisecond)
	return mcp.NewToolResultText(r.GetString("tag", "")), nil
}

// arrival is how long a notification may take on one stream while another stream is quicker, on a busy machine.
const arrival = 300 * time.Millisecond

func progress(ctx context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	steps := r.GetInt("steps", 0)
	for step := 1; step <= steps; step++ {
		if r.Params.Meta != nil && r.Params.Meta.ProgressToken != nil {
			err := server.ServerFromContext(ctx).SendNotificationToClient(ctx, "notifications/progress", map[string]any{
				"progressToken": r.Params.Meta.ProgressToken,
				"progress":      step,
				"total":         steps,
				"message":       fmt.Sprintf("step %d", step),
			})
			if err != nil {
				return nil, err
			}
		}
		time.Sleep(time.Duration(r.GetInt("interval_ms", 0)) * time.Millisecond)
	}
	// A step may go by the session's own stream, and clients drop what comes after the result.
	time.Sleep(arrival)
	return mcp.NewToolResultText(fmt.Sprintf("%d steps", steps)), nil
}

func fail(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	return mcp.NewToolResultError("deliberate failure"), nil
}

func long(ctx context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	tag := r.GetString("tag", "")
	watch.Record("started", tag)
	select {
	case <-time.After(time.Duration(r.GetFloat("seconds", 0) * float64(time.Second))):
		watch.Record("finished", tag)
		return mcp.NewToolResultText(tag), nil
	case <-ctx.Done():
		watch.Record("cancelled", tag)
		return nil, ctx.Err()
	}
}
