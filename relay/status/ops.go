package status

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Ops is what a relay says at its operations address.
type Ops struct {
	Ready       bool    `json:"ready"`
	Message     string  `json:"message,omitempty"` // why it is not
	Streaming   bool    `json:"streaming"`
	Paused      bool    `json:"paused"`
	LagSeconds  float64 `json:"lagSeconds"`
	Buffered    float64 `json:"bufferedBytes"`
	Limit       float64 `json:"bufferLimitBytes"`
	InFlight    float64 `json:"transactionsInFlight"`
	Published   float64 `json:"published"` // records, since it was started
	DeadLetters float64 `json:"deadLetters"`
	Restarts    float64 `json:"sessionRestarts"`
}

// opsTimeout bounds one answer of the operations address.
const opsTimeout = 5 * time.Second

func readOps(ctx context.Context, address string) (*Ops, error) {
	ctx, cancel := context.WithTimeout(ctx, opsTimeout)
	defer cancel()
	code, ready, err := get(ctx, address+"/ready")
	if err != nil {
		return nil, err
	}
	code2, text, err := get(ctx, address+"/metrics")
	if err == nil && code2 != http.StatusOK {
		err = fmt.Errorf("%s/metrics answers %d", address, code2)
	}
	if err != nil {
		return nil, err
	}
	m := metrics(text)
	if _, ok := m["relay_streaming"]; !ok {
		return nil, fmt.Errorf("%s/metrics is no relay's", address)
	}
	o := &Ops{
		Ready: code == http.StatusOK, Streaming: m["relay_streaming"] > 0, Paused: m["relay_paused"] > 0,
		LagSeconds: m["relay_lag_seconds"], Buffered: m["relay_buffered_bytes"], Limit: m["relay_buffer_limit_bytes"], InFlight: m["relay_transactions_in_flight"],
		Published: m["relay_records_published_total"], DeadLetters: m["relay_dead_letters_total"], Restarts: m["relay_session_restarts_total"],
	}
	if !o.Ready {
		o.Message = strings.TrimSpace(ready)
	}
	return o, nil
}

// maxAnswer is far beyond what an operations address says.
const maxAnswer = 16 << 20

func get(ctx context.Context, url string) (code int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", fmt.Errorf("ops: %w; want an address like http://127.0.0.1:9401", err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("ask the relay: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return 0, "", fmt.Errorf("ask the relay: %w", err)
	}
	return answer.StatusCode, string(b), nil
}

// metrics reads the text format of Prometheus, and adds up what differs by
// labels.
func metrics(text string) map[string]float64 {
	sums := make(map[string]float64)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || line[0] == '#' {
			continue
		}
		name, _, _ := strings.Cut(line[:space], "{")
		if v, err := strconv.ParseFloat(line[space+1:], 64); err == nil {
			sums[name] += v
		}
	}
	return sums
}
