package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/seed-048de892/walpost/services/user"
)

// password is everybody's.
const password = "Secret12!"

// A client speaks HTTP with the programs, as anybody may.
type client struct {
	user, archive string // host:port
	http          *http.Client
}

func newClient(at addresses) *client {
	return &client{user: at.user, archive: at.archive, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// A person is what is asked of the user service to sign somebody up.
type person struct {
	Username    string `json:"username"`
	Email       string `json:"email"`
	Password    string `json:"password"`
	FullName    string `json:"fullName"`
	DateOfBirth string `json:"dateOfBirth,omitempty"`
}

func newPerson(username string) person {
	return person{
		Username: username, Email: username + "@example.org", Password: password,
		FullName: "Ada Lovelace", DateOfBirth: "1990-12-10",
	}
}

func (c *client) create(ctx context.Context, p person) (status int, state user.State, err error) {
	status, err = c.do(ctx, http.MethodPost, c.user, "/users", "", p, &state)
	return status, state, err
}

// update changes version of a user; a member that is null is removed.
func (c *client) update(ctx context.Context, id string, version int64, change map[string]any) (status int, state user.State, err error) {
	status, err = c.do(ctx, http.MethodPatch, c.user, "/users/"+id, strconv.Quote(strconv.FormatInt(version, 10)), change, &state)
	return status, state, err
}

func (c *client) logIn(ctx context.Context, name, password string) (status int, state user.State, err error) {
	var session struct{ User user.State }
	status, err = c.do(ctx, http.MethodPost, c.user, "/sessions", "", map[string]string{"login": name, "password": password}, &session)
	return status, session.User, err
}

func (c *client) deactivate(ctx context.Context, id string) (status int, state user.State, err error) {
	status, err = c.do(ctx, http.MethodPost, c.user, "/users/"+id+"/deactivate", "", nil, &state)
	return status, state, err
}

// replayed is what the archive folds a user's events to.
type replayed struct {
	Version    int64
	EventCount int64
	State      json.RawMessage
}

func (c *client) replay(ctx context.Context, id string) (status int, state replayed, err error) {
	status, err = c.do(ctx, http.MethodGet, c.archive, "/aggregates/user/"+id, "", nil, &state)
	return status, state, err
}

// do sends body as JSON, if there is one, and reads the data of a success. An
// answer that refuses is no error: its status tells.
func (c *client) do(ctx context.Context, method, host, path, ifMatch string, body, data any) (status int, err error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("%s http://%s%s: %w", method, host, path, err) }
	var content io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fail(err)
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, content)
	if err != nil {
		return fail(err)
	}
	request.Header.Set("User-Agent", "walpost-demo")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if ifMatch != "" {
		request.Header.Set("If-Match", ifMatch)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, err // names method and URL
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return fail(err)
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return response.StatusCode, nil
	}
	envelope := struct{ Data any }{data}
	if err := json.Unmarshal(answer, &envelope); err != nil {
		return fail(fmt.Errorf("read the answer: %w", err))
	}
	return response.StatusCode, nil
}
