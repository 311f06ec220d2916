// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bailiff.dev/bailiff/bpf"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// IssueGrant implements AdminService.
func (d *Daemon) IssueGrant(ctx context.Context, req *connect.Request[controlv1.IssueGrantRequest]) (*connect.Response[controlv1.IssueGrantResponse], error) {
	s, ok := d.sessions.find(req.Msg.Session)
	if !ok {
		return nil, noSession(req.Msg.Session)
	}
	x, err := requested(req.Msg, d.o.Config.Grants.MaxTTL)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if len(x.Files) > 0 && !d.kernel.Full() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New(
			"files cannot be granted on this host: it has the basic tier, where Landlock confines them, and what Landlock was told when a session started cannot be widened; "+
				"see `bailiff doctor` for what would raise the tier, or start a session under a policy that allows them"))
	}
	d.policies.apply.RLock() // the rules that it is compared with stay those in force
	defer d.policies.apply.RUnlock()
	ruleset, _, _ := d.policies.forAgent(s.Agent)
	notes, err := weighGrant(x, ruleset)
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	x.By = peerName(ctx)
	if err := d.grants.issue(s, x); err != nil {
		return nil, issueError(s.ID, err)
	}
	return connect.NewResponse(&controlv1.IssueGrantResponse{Grant: d.grants.describe(x), Notes: notes}), nil
}

func issueError(session string, err error) error {
	var full *bpf.CapacityError
	switch {
	case errors.Is(err, errSessionEnded):
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("session %s has ended: see `bailiff sessions list` for those that run", session))
	case errors.As(err, &full):
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("%w (nothing was granted)", err))
	}
	return connect.NewError(connect.CodeInternal, fmt.Errorf("%w (nothing was granted)", err))
}

// ListGrants implements AdminService.
func (d *Daemon) ListGrants(_ context.Context, req *connect.Request[controlv1.ListGrantsRequest]) (*connect.Response[controlv1.ListGrantsResponse], error) {
	if _, ok := d.sessions.find(req.Msg.Session); !ok && req.Msg.Session != "" {
		return nil, noSession(req.Msg.Session)
	}
	answer := &controlv1.ListGrantsResponse{}
	for _, x := range d.grants.list(req.Msg.All) {
		if req.Msg.Session == "" || x.Session == req.Msg.Session {
			answer.Grants = append(answer.Grants, d.grants.describe(x))
		}
	}
	return connect.NewResponse(answer), nil
}

// RevokeGrants implements AdminService.
func (d *Daemon) RevokeGrants(ctx context.Context, req *connect.Request[controlv1.RevokeGrantsRequest]) (*connect.Response[controlv1.RevokeGrantsResponse], error) {
	list, err := d.toRevoke(req.Msg)
	if err != nil {
		return nil, err
	}
	answer := &controlv1.RevokeGrantsResponse{}
	for _, x := range d.grants.revoke(list, peerName(ctx)) {
		answer.Grants = append(answer.Grants, d.grants.describe(x))
	}
	return connect.NewResponse(answer), nil
}

// toRevoke finds the grants that are meant.
func (d *Daemon) toRevoke(m *controlv1.RevokeGrantsRequest) ([]*grant, error) {
	if (len(m.Ids) == 0) == (m.Session == "") {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("name grants (`bailiff grants list`), or a session with --session, and not both"))
	}
	if _, ok := d.sessions.find(m.Session); !ok && m.Session != "" {
		return nil, noSession(m.Session)
	}
	all := d.grants.list(true)
	if m.Session != "" {
		return slices.DeleteFunc(all, func(x *grant) bool { return x.Session != m.Session }), nil
	}
	var list []*grant
	for _, id := range m.Ids {
		i := slices.IndexFunc(all, func(x *grant) bool { return x.ID == id })
		if i < 0 {
			return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no grant %q: see `bailiff grants list --all`", id))
		}
		if how := d.grants.ending(all[i]); how != "" {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("grant %s is over: %s", id, how))
		}
		list = append(list, all[i])
	}
	return list, nil
}

// list returns the grants, those that ended only where all are wanted, oldest first.
func (g *grants) list(all bool) []*grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.all()
	if all {
		for _, id := range g.ended {
			list = append(list, g.byID[id])
		}
		slices.SortFunc(list, compareGrants)
	}
	return list
}

// ending says how a grant ended; "": it has not.
func (g *grants) ending(x *grant) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return x.How
}

// describe says how a grant stands.
func (g *grants) describe(x *grant) *controlv1.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := &controlv1.Grant{
		Id: x.ID, Session: x.Session, Agent: x.Agent, Task: x.Task, Ttl: durationpb.New(x.TTL), Uses: x.Uses,
		KillMapped: x.Kill, Reason: x.Reason, By: x.By, Issued: timestamppb.New(x.Issued), State: stateLive,
	}
	for _, f := range x.Files {
		out.Files = append(out.Files, &controlv1.FileAccess{Path: f.Path, Access: f.Access.Words()})
	}
	for i := range x.Network {
		n := &x.Network[i]
		out.Network = append(out.Network, &controlv1.NetworkAccess{
			Address: n.address(), Ports: n.portWords(), Protocol: protocolName(uint16(n.Transport)),
		})
	}
	if !x.Ended.IsZero() {
		out.State, out.Ended = x.How, timestamppb.New(x.Ended)
		return out
	}
	left := x.Deadline - g.boot()
	out.Remaining = durationpb.New(max(left, 0))
	state, err := g.kernel.GrantState(x.Number)
	switch {
	case err != nil:
		g.log.Error("a grant cannot be looked at", "grant", x.ID, "error", err)
	case state.Uses >= 0:
		uses := uint32(state.Uses)
		out.UsesLeft = &uses
	}
	switch {
	case left <= 0:
		out.State = endExpired
	case out.UsesLeft != nil && *out.UsesLeft == 0:
		out.State = stateUsedUp
	}
	return out
}
