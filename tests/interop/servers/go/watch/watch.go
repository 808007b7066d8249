// Package watch tells the harness what a server saw of its long calls: JSON lines in the file that INTEROP_EVENTS names.
package watch

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

var mu sync.Mutex

// Record appends one fact about the call that carries tag.
func Record(event, tag string) {
	line, err := json.Marshal(map[string]string{"event": event, "tag": tag})
	if err != nil {
		log.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	file, err := os.OpenFile(os.Getenv("INTEROP_EVENTS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(append(line, '\n')); err != nil {
		log.Fatal(err)
	}
}

// Disconnects records "disconnected" when the caller of a tagged call leaves before its answer is complete.
func Disconnects(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if tag := tagOf(body); tag != "" {
			answered := make(chan struct{})
			defer close(answered)
			go func() {
				select {
				case <-r.Context().Done():
					Record("disconnected", tag)
				case <-answered:
				}
			}()
		}
		next.ServeHTTP(w, r)
	})
}

// Serve serves handler on 127.0.0.1:port until the process is stopped.
func Serve(port string, handler http.Handler) {
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, Disconnects(handler)))
}

func tagOf(body []byte) string {
	var call struct {
		Params struct {
			Arguments struct {
				Tag string `json:"tag"`
			} `json:"arguments"`
		} `json:"params"`
	}
	if json.Unmarshal(body, &call) != nil {
		return ""
	}
	return call.Params.Arguments.Tag
}
