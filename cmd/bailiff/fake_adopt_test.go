// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// AdoptSession knows process 42, which has something that is forbidden.
func (*fakeDaemon) AdoptSession(_ context.Context, r *connect.Request[controlv1.AdoptSessionRequest]) (*connect.Response[controlv1.AdoptSessionResponse], error) {
	m := r.Msg
	if m.Agent == "*" {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("it is a pattern"))
	}
	if m.Pid != 42 {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the process is gone"))
	}
	answer := &controlv1.AdoptSessionResponse{Processes: 3, Limits: []string{"the environment\x1b is what it was"}, Report: []*controlv1.Predating{
		{Pid: 42, Kind: "mapping", What: "/usr/lib/libc.so.6", Verdict: "fine", Why: "allowed"},
		{Pid: 43, Kind: "file", What: "3: /srv/se\ncret", Verdict: "kill", Why: "no line names it"},
	}}
	switch {
	case m.OnForbidden == controlv1.OnForbidden_ON_FORBIDDEN_REFUSE:
		answer.Refusal = "1 of its 3 processes has what the policy forbids"
	case !m.DryRun:
		answer.Session = &controlv1.Session{Id: "s-3", Agent: m.Agent, Task: m.Task, Context: m.Context}
		answer.Killed = []uint32{43}
	}
	return connect.NewResponse(answer), nil
}
