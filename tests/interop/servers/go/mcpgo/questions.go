package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// What a question is called among those of one call.
const key = "question"

// addQuestions adds the tools that ask the client. A handler returns its question; with a legacy client the SDK asks
// it at once and calls the handler again.
func addQuestions(s *server.MCPServer) {
	question := mcp.WithString("question", mcp.Required())
	s.AddTool(mcp.NewTool("ask_user", mcp.WithDescription("Asks the user for a name."), question), askUser)
	s.AddTool(mcp.NewTool("ask_model", mcp.WithDescription("Asks the client's model."), question), askModel)
	s.AddTool(mcp.NewTool("ask_roots", mcp.WithDescription("Asks for the client's roots.")), askRoots)
}

func ask() *server.InputRequestBuilder { return server.NewInputRequestBuilder("") }

func askUser(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	answer := server.ElicitationResponse(r.Params.InputResponses, key)
	if answer == nil {
		return ask().Elicit(key, mcp.ElicitationParams{
			Message: r.GetString("question", ""),
			RequestedSchema: map[string]any{
				"type":       "object",
				"properties": map[string]any{"name": map[string]any{"type": "string"}},
				"required":   []string{"name"},
			},
		}).ToolResult(), nil
	}
	if answer.Action != mcp.ElicitationResponseActionAccept {
		return mcp.NewToolResultText(string(answer.Action)), nil
	}
	content, ok := answer.Content.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the user said %v", answer.Content)
	}
	return mcp.NewToolResultText(fmt.Sprint("accept ", content["name"])), nil
}

func askModel(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	answer := server.SamplingResponse(r.Params.InputResponses, key)
	if answer == nil {
		said := mcp.NewTextContent(r.GetString("question", ""))
		return ask().Sample(key, mcp.CreateMessageParams{
			Messages:  []mcp.SamplingMessage{{Role: mcp.RoleUser, Content: said}},
			MaxTokens: 100,
		}).ToolResult(), nil
	}
	// The content comes as whatever the SDK has made of it.
	raw, err := json.Marshal(answer.Content)
	if err != nil {
		return nil, err
	}
	var said mcp.TextContent
	if err := json.Unmarshal(raw, &said); err != nil {
		return nil, err
	}
	return mcp.NewToolResultText(answer.Model + " " + said.Text), nil
}

func askRoots(_ context.Context, r mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	answer := server.RootsResponse(r.Params.InputResponses, key)
	if answer == nil {
		return ask().Roots(key).ToolResult(), nil
	}
	uris := make([]string, 0, len(answer.Roots))
	for _, root := range answer.Roots {
		uris = append(uris, root.URI)
	}
	return mcp.NewToolResultText(strings.Join(uris, " ")), nil
}
