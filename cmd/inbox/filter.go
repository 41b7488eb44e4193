package main

import (
	"errors"
	"time"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// filterFlags select letters: those that match every flag given.
type filterFlags struct {
	Group       string        `help:"Consumer group. Default: every group of the database." env:"INBOX_GROUP"`
	ID          []int64       `name:"id" help:"Ids, by comma." placeholder:"ID"`
	State       string        `help:"dead or waiting. Default: both." enum:",dead,waiting" default:"" placeholder:"STATE"`
	Type        string        `help:"Type of the event." placeholder:"TYPE"`
	Key         string        `help:"Ordering key: aggregate type/id; topic/record key where there is no aggregate." placeholder:"user/42"`
	Topic       string        `help:"Topic." placeholder:"TOPIC"`
	OlderThan   time.Duration `help:"Failed, or came to wait, longer ago than this." placeholder:"1h"`
	YoungerThan time.Duration `help:"Failed, or came to wait, within this time." placeholder:"1h"`
	Error       string        `help:"Text in the error, in upper or lower case." placeholder:"TEXT"`
}

func (f *filterFlags) filter() (inbox.Filter, error) {
	if f.OlderThan < 0 || f.YoungerThan < 0 {
		return inbox.Filter{}, usage("--older-than and --younger-than: give a time span, like 90m")
	}
	filter := inbox.Filter{
		IDs: f.ID, Group: f.Group, State: f.State, Type: f.Type, OrderingKey: f.Key, Topic: f.Topic, Error: f.Error,
	}
	now := time.Now()
	if f.OlderThan > 0 {
		filter.FailedBefore = now.Add(-f.OlderThan)
	}
	if f.YoungerThan > 0 {
		filter.FailedAfter = now.Add(-f.YoungerThan)
	}
	return filter, nil
}

// chosen is the filter of a command that changes what it selects: without any
// flag but the group, which may come from the environment, it must be meant.
func (f *filterFlags) chosen(all bool, command string) (inbox.Filter, error) {
	filter, err := f.filter()
	if err != nil {
		return filter, err
	}
	rest := filter
	rest.Group = ""
	switch selects := !rest.IsZero(); {
	case selects && all:
		return filter, usage("--all goes without another filter than --group")
	case !selects && !all:
		return filter, usage("nothing is selected: give --id or another filter, or --all; see inbox dead " + command + " --help")
	}
	return filter, nil
}

func usage(message string) error {
	return &daemon.ExitError{Code: daemon.ExitUsage, Err: errors.New(message)}
}
