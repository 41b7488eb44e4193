package web

import (
	"net/http"
	"strconv"
	"strings"
)

// ETag is the entity tag of an aggregate's version: "3" in quotes.
func ETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// A Precondition is what If-Match asks for. The zero Precondition asks for
// nothing.
type Precondition struct {
	version int64
}

// ParseIfMatch reads an If-Match header: one entity tag of [ETag], or * for
// any version. Where it is missing, that is 428 if required.
func ParseIfMatch(header string, required bool) (Precondition, error) {
	header = strings.TrimSpace(header)
	switch {
	case header == "" && required:
		return Precondition{}, &Problem{
			Status: http.StatusPreconditionRequired, Message: "Precondition required",
			Details: []Detail{{Field: "If-Match", Message: "send the ETag of the state you have seen"}},
		}
	case header == "" || header == "*":
		return Precondition{}, nil
	case strings.HasPrefix(header, "W/"): // If-Match compares strongly: a weak tag never matches (RFC 9110, 13.1.1)
		return Precondition{version: -1}, nil
	}
	tag, ok := strings.CutPrefix(header, `"`)
	tag, closed := strings.CutSuffix(tag, `"`)
	version, err := strconv.ParseInt(tag, 10, 64)
	if !ok || !closed || err != nil || version < 1 || tag != strconv.FormatInt(version, 10) {
		return Precondition{}, &Problem{
			Status: http.StatusBadRequest, Message: "Malformed If-Match",
			Details: []Detail{{Field: "If-Match", Message: `send one entity tag as the ETag header gives it, like "3", or *`}},
		}
	}
	return Precondition{version: version}, nil
}

// Check gives 412 where version is not the one asked for.
func (p Precondition) Check(version int64) error {
	if p.version == 0 || p.version == version {
		return nil
	}
	return &Problem{
		Status: http.StatusPreconditionFailed, Message: "Precondition failed",
		Details: []Detail{{Field: "If-Match", Message: "the state has changed meanwhile: its ETag is " + ETag(version)}},
	}
}
