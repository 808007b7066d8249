package main

import (
	"context"
	"slices"
	"sync"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// watchers knows who is to hear of a changed resource. The SDK acknowledges subscriptions and leaves the rest to its user.
type watchers struct {
	mu sync.Mutex
	// Ids of legacy sessions, by URI.
	sessions map[string][]string
	// Streams of subscriptions/listen, by the session that the SDK makes for each.
	streams map[server.ClientSession]stream
}

type stream struct {
	id   any
	uris []string
}

func newWatchers() *watchers {
	return &watchers{sessions: map[string][]string{}, streams: map[server.ClientSession]stream{}}
}

func (w *watchers) hooks() *server.Hooks {
	hooks := &server.Hooks{}
	hooks.AddBeforeSubscribe(func(ctx context.Context, _ any, r *mcp.SubscribeRequest) {
		w.mu.Lock()
		defer w.mu.Unlock()
		id := server.ClientSessionFromContext(ctx).SessionID()
		if !slices.Contains(w.sessions[r.Params.URI], id) {
			w.sessions[r.Params.URI] = append(w.sessions[r.Params.URI], id)
		}
	})
	hooks.AddBeforeSubscriptionsListen(func(ctx context.Context, id any, r *mcp.SubscriptionsListenRequest) {
		w.mu.Lock()
		defer w.mu.Unlock()
		session := server.ClientSessionFromContext(ctx)
		w.streams[session] = stream{id, r.Params.Notifications.ResourceSubscriptions}
		context.AfterFunc(ctx, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.streams, session)
		})
	})
	return hooks
}

// updated tells everybody who watches uri.
func (w *watchers) updated(s *server.MCPServer, uri string) {
	const method = "notifications/resources/updated"
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.sessions[uri] {
		// A session that is gone is no error of the one that touches.
		_ = s.SendNotificationToSpecificClient(id, method, map[string]any{"uri": uri})
	}
	for session, stream := range w.streams {
		if !slices.Contains(stream.uris, uri) {
			continue
		}
		session.NotificationChannel() <- mcp.JSONRPCNotification{
			JSONRPC: mcp.JSONRPC_VERSION,
			Notification: mcp.Notification{Method: method, Params: mcp.NotificationParams{
				Meta:             map[string]any{mcp.MetaKeySubscriptionID: stream.id},
				AdditionalFields: map[string]any{"uri": uri},
			}},
		}
	}
}
