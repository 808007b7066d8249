package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// What a question is called among those of one call.
const key = "question"

type asked struct {
	Question string `json:"question"`
}

// addQuestions adds the tools that ask the client. A handler returns its question; with a legacy client the SDK asks
// it at once and calls the handler again.
func addQuestions(s *mcp.Server) {
	mcp.AddTool(s, &mcp.Tool{Name: "ask_user", Description: "Asks the user for a name."}, askUser)
	mcp.AddTool(s, &mcp.Tool{Name: "ask_model", Description: "Asks the client's model."}, askModel)
	mcp.AddTool(s, &mcp.Tool{Name: "ask_roots", Description: "Asks for the client's roots."}, askRoots)
}

func ask(question mcp.InputRequest) (*mcp.CallToolResult, any, error) {
	return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{key: question}}, nil, nil
}

func askUser(_ context.Context, r *mcp.CallToolRequest, in asked) (*mcp.CallToolResult, any, error) {
	answer, ok := r.Params.InputResponses[key].(*mcp.ElicitResult)
	if !ok {
		return ask(&mcp.ElicitParams{
			Message: in.Question,
			RequestedSchema: &jsonschema.Schema{
				Type:       "object",
				Properties: map[string]*jsonschema.Schema{"name": {Type: "string"}},
				Required:   []string{"name"},
			},
		})
	}
	if answer.Action != "accept" {
		return text(answer.Action), nil, nil
	}
	return text(fmt.Sprint("accept ", answer.Content["name"])), nil, nil
}

func askModel(_ context.Context, r *mcp.CallToolRequest, in asked) (*mcp.CallToolResult, any, error) {
	answer, ok := r.Params.InputResponses[key].(*mcp.CreateMessageWithToolsResult)
	if !ok {
		return ask(&mcp.CreateMessageParams{
			Messages:  []*mcp.SamplingMessage{{Role: "user", Content: &mcp.TextContent{Text: in.Question}}},
			MaxTokens: 100,
		})
	}
	said, ok := answer.Content[0].(*mcp.TextContent)
	if !ok {
		return nil, nil, fmt.Errorf("the model said %T", answer.Content[0])
	}
	return text(answer.Model + " " + said.Text), nil, nil
}

func askRoots(_ context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
	answer, ok := r.Params.InputResponses[key].(*mcp.ListRootsResult)
	if !ok {
		return ask(&mcp.ListRootsParams{})
	}
	uris := make([]string, 0, len(answer.Roots))
	for _, root := range answer.Roots {
		uris = append(uris, root.URI)
	}
	return text(strings.Join(uris, " ")), nil, nil
}
