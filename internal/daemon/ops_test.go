package daemon_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/seed-048de892/walpost/internal/daemon"
)

// TestControlsAreForThisMachine: nobody else, and no page that a browser on it
// shows, may pull a lever.
func TestControlsAreForThisMachine(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method, from string
		header       [2]string
		want         int
	}{
		"a command on this machine":           {http.MethodPost, "127.0.0.1:4711", [2]string{}, http.StatusOK},
		"one by IPv6":                         {http.MethodPost, "[::1]:4711", [2]string{}, http.StatusOK},
		"one by IPv4 in IPv6":                 {http.MethodPost, "[::ffff:127.0.0.1]:4711", [2]string{}, http.StatusOK},
		"another machine":                     {http.MethodPost, "10.0.0.7:4711", [2]string{}, http.StatusForbidden},
		"another machine that claims another": {http.MethodPost, "10.0.0.7:4711", [2]string{"X-Forwarded-For", "127.0.0.1"}, http.StatusForbidden},
		"no address":                          {http.MethodPost, "@", [2]string{}, http.StatusForbidden},
		"a page in a browser":                 {http.MethodPost, "127.0.0.1:4711", [2]string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		"a page in an old browser":            {http.MethodPost, "127.0.0.1:4711", [2]string{"Origin", "https://elsewhere.example"}, http.StatusForbidden},
		"a link":                              {http.MethodGet, "127.0.0.1:4711", [2]string{}, http.StatusMethodNotAllowed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pulled := 0
			ops := &daemon.Ops{Log: slog.New(slog.DiscardHandler), Controls: map[string]func() string{"pause": func() string { pulled++; return "paused" }}}
			request := httptest.NewRequest(tt.method, "http://localhost:9401/pause", nil)
			request.RemoteAddr = tt.from
			if tt.header[0] != "" {
				request.Header.Set(tt.header[0], tt.header[1])
			}
			answer := httptest.NewRecorder()
			ops.Handler().ServeHTTP(answer, request)
			if answer.Code != tt.want || pulled == 1 != (tt.want == http.StatusOK) {
				t.Errorf("status %d, pulled %d times, want status %d: %s", answer.Code, pulled, tt.want, answer.Body)
			}
			if tt.want == http.StatusOK && !strings.Contains(answer.Body.String(), `"paused"`) {
				t.Errorf("the answer does not say the state: %s", answer.Body)
			}
		})
	}
}
