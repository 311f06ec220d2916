// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// IssueGrant gives what it is asked for, but no more than an hour.
func (*fakeDaemon) IssueGrant(_ context.Context, r *connect.Request[controlv1.IssueGrantRequest]) (*connect.Response[controlv1.IssueGrantResponse], error) {
	m := r.Msg
	if m.Session != "s-1" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("session %s has ended", m.Session))
	}
	if m.Ttl.AsDuration() > time.Hour {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("2h0m0s is too long"))
	}
	answer := &controlv1.IssueGrantResponse{Grant: fakeGrant(m)}
	for _, f := range m.Files {
		answer.Notes = append(answer.Notes, f.Path+" is allowed\x1b without the grant")
	}
	return connect.NewResponse(answer), nil
}

func fakeGrant(m *controlv1.IssueGrantRequest) *controlv1.Grant {
	return &controlv1.Grant{Id: "g-1", Session: m.Session, Agent: "spiffe://local/agent/reviewer", Files: m.Files, Network: m.Network,
		Ttl: m.Ttl, Uses: m.Uses, KillMapped: m.KillMapped, Reason: m.Reason, Issued: fakeStart, State: "live"}
}

func fakeGrants() []*controlv1.Grant {
	uses := uint32(2)
	live := fakeGrant(&controlv1.IssueGrantRequest{Session: "s-1", Uses: 3, Ttl: durationpb.New(time.Hour),
		Network: []*controlv1.NetworkAccess{{Address: "10.0.0.5", Ports: []string{"443", "8000-8099"}, Protocol: "tcp"}, {Address: "fd00::/8", Protocol: "udp"}},
		Files:   []*controlv1.FileAccess{{Path: "/srv/my\ndata", Access: []string{"read", "write"}}}})
	live.UsesLeft, live.Remaining = &uses, durationpb.New(90*time.Second+time.Millisecond)
	ended := fakeGrant(&controlv1.IssueGrantRequest{Session: "s-0", Network: []*controlv1.NetworkAccess{{Address: "10.0.0.6", Ports: []string{"80"}, Protocol: "tcp"}}})
	ended.Id, ended.State, ended.Ended = "g-0", "expired", fakeStart
	return []*controlv1.Grant{ended, live}
}

func (*fakeDaemon) ListGrants(_ context.Context, r *connect.Request[controlv1.ListGrantsRequest]) (*connect.Response[controlv1.ListGrantsResponse], error) {
	list := slices.DeleteFunc(fakeGrants(), func(g *controlv1.Grant) bool {
		return !r.Msg.All && g.Ended != nil || r.Msg.Session != "" && g.Session != r.Msg.Session
	})
	return connect.NewResponse(&controlv1.ListGrantsResponse{Grants: list}), nil
}

func (*fakeDaemon) RevokeGrants(_ context.Context, r *connect.Request[controlv1.RevokeGrantsRequest]) (*connect.Response[controlv1.RevokeGrantsResponse], error) {
	answer := &controlv1.RevokeGrantsResponse{}
	for _, id := range r.Msg.Ids {
		if id != "g-1" {
			return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no grant %q", id))
		}
	}
	if r.Msg.Session != "s-0" {
		answer.Grants = fakeGrants()[1:]
	}
	return connect.NewResponse(answer), nil
}
