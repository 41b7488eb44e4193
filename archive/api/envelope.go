package api

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/seed-048de892/walpost/outbox"
)

const (
	headerRequestID = "X-Request-ID"
	keyRequestID    = "requestId"
)

// requestID takes over the caller's id, or makes one, and gives it back.
func requestID(c *gin.Context) {
	id := c.GetHeader(headerRequestID)
	if !validRequestID(id) {
		id = outbox.NewID().String()
	}
	c.Set(keyRequestID, id)
	c.Header(headerRequestID, id)
}

// validRequestID keeps what ends up in logs short and in one line.
func validRequestID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

type success struct {
	Success bool `json:"success"`
	Data    any  `json:"data"`
	Meta    meta `json:"meta"`
}

type meta struct {
	RequestID string    `json:"requestId"`
	Timestamp time.Time `json:"timestamp"`
}

type failure struct {
	Success   bool     `json:"success"`
	Error     string   `json:"error"`
	Details   []detail `json:"details,omitempty"`
	RequestID string   `json:"requestId"`
}

type detail struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func succeed(c *gin.Context, data any) {
	c.PureJSON(http.StatusOK, success{Success: true, Data: data, Meta: meta{c.GetString(keyRequestID), time.Now().UTC()}})
}

func fail(c *gin.Context, status int, message string, details ...detail) {
	c.Abort()
	c.PureJSON(status, failure{Error: message, Details: details, RequestID: c.GetString(keyRequestID)})
}
