package main

import (
	"context"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"interop/fixture"
)

type named struct {
	Name string `json:"name"`
}

type located struct {
	URI string `json:"uri"`
}

// addFeatures adds prompts and resources, and the tools that log and that change the lists.
func addFeatures(s *mcp.Server, name string) {
	base := fixture.Base(name)
	s.AddPrompt(&mcp.Prompt{
		Name: "greet", Description: "Greets somebody.",
		Arguments: []*mcp.PromptArgument{{Name: "name", Required: true}},
	}, greet)
	s.AddResource(&mcp.Resource{URI: base + "text", Name: "text", MIMEType: "text/plain"},
		func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
			return textAt(r.Params.URI, fixture.Text(name)), nil
		})
	s.AddResource(&mcp.Resource{URI: base + "blob", Name: "blob", MIMEType: "application/octet-stream"},
		func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
			contents := &mcp.ResourceContents{URI: r.Params.URI, MIMEType: "application/octet-stream", Blob: fixture.Blob()}
			return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{contents}}, nil
		})
	s.AddResourceTemplate(&mcp.ResourceTemplate{URITemplate: base + "item/{id}", Name: "item", MIMEType: "text/plain"},
		func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
			return textAt(r.Params.URI, fixture.Item(name, strings.TrimPrefix(r.Params.URI, base+"item/"))), nil
		})
	mcp.AddTool(s, &mcp.Tool{Name: "log", Description: "Logs a message at four levels."}, log)
	mcp.AddTool(s, &mcp.Tool{Name: "touch", Description: "Tells whoever subscribed to a resource that it has changed."},
		func(ctx context.Context, _ *mcp.CallToolRequest, in located) (*mcp.CallToolResult, any, error) {
			return text(in.URI), nil, s.ResourceUpdated(ctx, &mcp.ResourceUpdatedNotificationParams{URI: in.URI})
		})
	mcp.AddTool(s, &mcp.Tool{Name: "grow", Description: "Adds a tool, a prompt and a resource of that name."},
		func(_ context.Context, _ *mcp.CallToolRequest, in named) (*mcp.CallToolResult, any, error) {
			grow(s, base, in.Name)
			return text(in.Name), nil, nil
		})
	mcp.AddTool(s, &mcp.Tool{Name: "shrink", Description: "Removes what grow has added."},
		func(_ context.Context, _ *mcp.CallToolRequest, in named) (*mcp.CallToolResult, any, error) {
			s.RemoveTools(in.Name)
			s.RemovePrompts(in.Name)
			s.RemoveResources(base + in.Name)
			return text(in.Name), nil, nil
		})
}

func textAt(uri, text string) *mcp.ReadResourceResult {
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: uri, MIMEType: "text/plain", Text: text}}}
}

func greet(_ context.Context, r *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	content := &mcp.TextContent{Text: fixture.Greeting(r.Params.Arguments["name"])}
	return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: content}}}, nil
}

func complete(_ context.Context, r *mcp.CompleteRequest) (*mcp.CompleteResult, error) {
	values := fixture.Items(r.Params.Argument.Value)
	if r.Params.Ref.Type == "ref/prompt" {
		values = fixture.People(r.Params.Argument.Value)
	}
	return &mcp.CompleteResult{Completion: mcp.CompletionResultDetails{Values: values, Total: len(values)}}, nil
}

func log(ctx context.Context, r *mcp.CallToolRequest, in tagged) (*mcp.CallToolResult, any, error) {
	for _, level := range fixture.Levels {
		message := &mcp.LoggingMessageParams{Level: mcp.LoggingLevel(level), Logger: "fixture", Data: in.Tag + " " + level}
		if err := r.Session.Log(ctx, message); err != nil {
			return nil, nil, err
		}
	}
	return text(in.Tag), nil, nil
}

func grow(s *mcp.Server, base, name string) {
	mcp.AddTool(s, &mcp.Tool{Name: name, Description: "Grown at run time."},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			return text(name), nil, nil
		})
	s.AddPrompt(&mcp.Prompt{Name: name, Description: "Grown at run time."}, greet)
	s.AddResource(&mcp.Resource{URI: base + name, Name: name},
		func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
			return textAt(r.Params.URI, name), nil
		})
}
