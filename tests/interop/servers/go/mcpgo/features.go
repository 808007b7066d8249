package main

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"interop/fixture"
)

type people struct{}

func (people) CompletePromptArgument(_ context.Context, _ string, argument mcp.CompleteArgument, _ mcp.CompleteContext) (*mcp.Completion, error) {
	return &mcp.Completion{Values: fixture.People(argument.Value)}, nil
}

type items struct{}

func (items) CompleteResourceArgument(_ context.Context, _ string, argument mcp.CompleteArgument, _ mcp.CompleteContext) (*mcp.Completion, error) {
	return &mcp.Completion{Values: fixture.Items(argument.Value)}, nil
}

// addFeatures adds prompts and resources, and the tools that log and that change the lists.
func addFeatures(s *server.MCPServer, name string, watchers *watchers) {
	base := fixture.Base(name)
	s.AddPrompt(mcp.NewPrompt("greet", mcp.WithPromptDescription("Greets somebody."),
		mcp.WithArgument("name", mcp.RequiredArgument())), greet)
	s.AddResource(mcp.NewResource(base+"text", "text", mcp.WithMIMEType("text/plain")),
		func(_ context.Context, r mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return textAt(r.Params.URI, fixture.Text(name)), nil
		})
	s.AddResource(mcp.NewResource(base+"blob", "blob", mcp.WithMIMEType("application/octet-stream")),
		func(_ context.Context, r mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			blob := base64.StdEncoding.EncodeToString(fixture.Blob())
			return []mcp.ResourceContents{mcp.BlobResourceContents{URI: r.Params.URI, MIMEType: "application/octet-stream", Blob: blob}}, nil
		})
	s.AddResourceTemplate(mcp.NewResourceTemplate(base+"item/{id}", "item", mcp.WithTemplateMIMEType("text/plain")),
		func(_ context.Context, r mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return textAt(r.Params.URI, fixture.Item(name, strings.TrimPrefix(r.Params.URI, base+"item/"))), nil
		})
	s.AddTool(mcp.NewTool("log", mcp.WithDescription("Logs a message at four levels."), mcp.WithString("tag", mcp.Required())), logLevels)
	s.AddTool(mcp.NewTool("touch", mcp.WithDescription("Tells whoever subscribed to a resource that it has changed."),
		mcp.WithString("uri", mcp.Required())),
		func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			uri := r.GetString("uri", "")
			watchers.updated(s, uri)
			settle()
			return mcp.NewToolResultText(uri), nil
		})
	s.AddTool(mcp.NewTool("grow", mcp.WithDescription("Adds a tool, a prompt and a resource of that name."),
		mcp.WithString("name", mcp.Required())),
		func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			grow(s, base, r.GetString("name", ""))
			return mcp.NewToolResultText(r.GetString("name", "")), nil
		})
	s.AddTool(mcp.NewTool("shrink", mcp.WithDescription("Removes what grow has added."), mcp.WithString("name", mcp.Required())),
		func(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			name := r.GetString("name", "")
			s.DeleteTools(name)
			settle()
			s.DeletePrompts(name)
			settle()
			s.DeleteResources(base + name)
			settle()
			return mcp.NewToolResultText(name), nil
		})
}

func textAt(uri, text string) []mcp.ResourceContents {
	return []mcp.ResourceContents{mcp.TextResourceContents{URI: uri, MIMEType: "text/plain", Text: text}}
}

func greet(_ context.Context, r mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	said := mcp.NewTextContent(fixture.Greeting(r.Params.Arguments["name"]))
	return mcp.NewGetPromptResult("", []mcp.PromptMessage{mcp.NewPromptMessage(mcp.RoleUser, said)}), nil
}

func logLevels(ctx context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	tag := r.GetString("tag", "")
	for _, level := range fixture.Levels {
		message := mcp.NewLoggingMessageNotification(mcp.LoggingLevel(level), "fixture", tag+" "+level)
		if err := server.ServerFromContext(ctx).SendLogMessageToClient(ctx, message); err != nil {
			return nil, err
		}
		settle()
	}
	return mcp.NewToolResultText(tag), nil
}

// settle waits until a notification is on its way: the SDK loses what it has not written when the handler returns, and
// mixes up what it is to write at the same time.
func settle() { time.Sleep(20 * time.Millisecond) }

func grow(s *server.MCPServer, base, name string) {
	s.AddTool(mcp.NewTool(name, mcp.WithDescription("Grown at run time.")),
		func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return mcp.NewToolResultText(name), nil
		})
	settle()
	s.AddPrompt(mcp.NewPrompt(name, mcp.WithPromptDescription("Grown at run time.")), greet)
	settle()
	s.AddResource(mcp.NewResource(base+name, name),
		func(_ context.Context, r mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return textAt(r.Params.URI, name), nil
		})
	settle()
}
