package web

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// A Success is the envelope of an answer.
type Success[T any] struct {
	Success bool `json:"success" example:"true"`
	Data    T    `json:"data"`
	Meta    Meta `json:"meta"`
}

// Meta tells about the answer itself.
type Meta struct {
	RequestID string    `json:"requestId"`
	Timestamp time.Time `json:"timestamp"`
	Next      string    `json:"next,omitempty" doc:"Where the list goes on: ask again with after set to it. Missing on the last page."`
}

// Answer puts data into its envelope.
func Answer[T any](ctx context.Context, data T) Success[T] {
	return Success[T]{Success: true, Data: data, Meta: Meta{
		RequestID: FromContext(ctx).ID, Timestamp: time.Now().UTC().Truncate(time.Millisecond),
	}}
}

// A Failure is the envelope of an error.
type Failure struct {
	Success   bool     `json:"success" example:"false"`
	Error     string   `json:"error" example:"Validation failed"`
	Details   []Detail `json:"details,omitempty"`
	RequestID string   `json:"requestId"`
}

// A Detail is one thing that is wrong with a request.
type Detail struct {
	Field   string `json:"field,omitempty" example:"email"`
	Message string `json:"message"`
}

// A Problem is an error that is an answer: handlers return it.
type Problem struct {
	Status  int
	Message string
	Details []Detail
	Header  http.Header // further headers of the answer
}

// Unavailable is the 503 of a dependency that is down for the moment.
func Unavailable(message string) *Problem {
	return &Problem{Status: http.StatusServiceUnavailable, Message: message, Header: http.Header{"Retry-After": {"5"}}}
}

func (p *Problem) Error() string { return p.Message }

// GetStatus and GetHeaders are how huma reads an error.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders gives the further headers.
func (p *Problem) GetHeaders() http.Header { return p.Header }

func (p *Problem) failure(ctx context.Context) Failure {
	return Failure{Error: p.Message, Details: p.Details, RequestID: FromContext(ctx).ID}
}

// envelope turns every error that huma is about to write into a [Failure].
func envelope(ctx huma.Context, _ string, v any) (any, error) {
	switch e := v.(type) {
	case *Problem:
		return e.failure(ctx.Context()), nil
	case *huma.ErrorModel:
		ctx.SetHeader("Content-Type", "application/json") // huma has set application/problem+json
		p := Problem{Message: sentence(e.Detail), Details: details(e)}
		return p.failure(ctx.Context()), nil
	}
	return v, nil
}

// details gives one message a field. The service's own rules run after the
// checks of the schema and say more, so the last message of a field stays.
// The value refused is left out: it may be a password.
func details(e *huma.ErrorModel) []Detail {
	var all []Detail
	for _, d := range e.Errors {
		if d == nil {
			continue
		}
		detail := Detail{Field: field(d.Location), Message: d.Message}
		if rest, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
			name, _, _ := strings.Cut(rest, " ")
			detail = Detail{Field: strings.TrimPrefix(detail.Field+"."+name, "."), Message: "is required"}
		}
		if (e.Status == http.StatusBadRequest || e.Status == http.StatusUnsupportedMediaType) && detail.Field != "" {
			continue // the body could not be read: what its members lack says nothing
		}
		if i := slices.IndexFunc(all, func(d Detail) bool { return d.Field == detail.Field }); i >= 0 {
			all[i] = detail
			continue
		}
		all = append(all, detail)
	}
	return all
}

// field gives "email" for "body.email" and "limit" for "query.limit".
func field(location string) string {
	_, name, _ := strings.Cut(location, ".")
	return name
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// describeFailures makes every error response of an operation a [Failure] in
// the OpenAPI document too.
func describeFailures(doc *huma.OpenAPI, op *huma.Operation) {
	schema := doc.Components.Schemas.Schema(reflect.TypeFor[Failure](), true, "Failure")
	for status, response := range op.Responses {
		if status == "default" || status >= "400" {
			response.Content = map[string]*huma.MediaType{"application/json": {Schema: schema}}
		}
	}
}
