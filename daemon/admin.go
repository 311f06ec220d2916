// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

// isAdmin: root and the admin group. That no process of a session gets here is
// settled before any handler, see guard.
func (d *Daemon) isAdmin(p *control.Peer) bool {
	return p.UID == 0 || d.adminGroup >= 0 && p.InGroup(uint32(d.adminGroup))
}

// guard is in front of every admin request: the peer must not be in a session,
// and must be an admin, except for what launchers need.
func (d *Daemon) guard() connect.UnaryInterceptorFunc {
	open := []string{"Launch", "SessionSummary"} // each checks for itself
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			peer, ok := control.PeerFrom(ctx)
			if !ok {
				return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("the caller is unknown"))
			}
			inside, err := d.sessionOf(peer)
			if err != nil {
				return nil, connect.NewError(connect.CodeInternal, fmt.Errorf("find out whether the caller is in a session: %w", err))
			}
			if inside != "" {
				d.log.Warn("a session tried to use the admin API", "session", inside, "procedure", req.Spec().Procedure)
				d.audit.Write(audit.Event{
					Kind: audit.System, Session: inside, PID: peer.PID, Message: "a session was refused the admin API",
					Fields: map[string]string{"procedure": req.Spec().Procedure},
				})
				return nil, connect.NewError(connect.CodePermissionDenied, errors.New("sessions may not use the admin API: ask from outside the session"))
			}
			method := req.Spec().Procedure[len("/bailiff.control.v1.AdminService/"):]
			if !d.isAdmin(peer) && !slices.Contains(open, method) {
				return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf(
					"user %d is no admin: use sudo, or become a member of adminGroup in bailiffd's configuration", peer.UID))
			}
			return next(ctx, req)
		}
	}
}

// sessionOf returns the session that a peer is in: by its label, and, since the
// basic tier has none, by its cgroup.
func (d *Daemon) sessionOf(p *control.Peer) (string, error) {
	pidfd, err := p.PIDFD()
	if err != nil {
		return "", err
	}
	defer pidfd.Close()
	number, ok, err := d.kernel.Labelled(int(pidfd.Fd()))
	if err != nil {
		return "", err
	}
	if ok {
		if s := d.sessions.numbered(number); s != nil {
			return s.ID, nil
		}
		return "unknown", nil
	}
	name, _, err := d.parent.Of(p.PID)
	return name, err
}

func peerName(ctx context.Context) string {
	if p, ok := control.PeerFrom(ctx); ok {
		return "uid " + strconv.Itoa(int(p.UID))
	}
	return ""
}

// ListSessions implements AdminService.
func (d *Daemon) ListSessions(_ context.Context, req *connect.Request[controlv1.ListSessionsRequest]) (*connect.Response[controlv1.ListSessionsResponse], error) {
	answer := &controlv1.ListSessionsResponse{}
	for _, s := range d.sessions.list(req.Msg.All) {
		answer.Sessions = append(answer.Sessions, d.describe(s))
	}
	return connect.NewResponse(answer), nil
}

func (d *Daemon) describe(s *session) *controlv1.Session {
	d.sessions.mu.Lock()
	ended := s.Ended
	d.sessions.mu.Unlock()
	out := &controlv1.Session{
		Id: s.ID, Agent: s.Agent, Task: s.Task, Context: s.Context, Command: s.Command,
		Pid: uint32(s.PID), Uid: s.UID, Started: timestamppb.New(s.Started), Tier: s.Tier, Denied: s.denials.total(),
	}
	if !ended.IsZero() {
		out.Ended = timestamppb.New(ended)
	} else if s.group != nil {
		if n, err := s.group.Processes(); err == nil {
			out.Processes = uint32(n)
		}
	}
	return out
}

func noSession(id string) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no session %q: see `bailiff sessions list --all`", id))
}

// StopSession implements AdminService.
func (d *Daemon) StopSession(ctx context.Context, req *connect.Request[controlv1.StopSessionRequest]) (*connect.Response[controlv1.StopSessionResponse], error) {
	s, ok := d.sessions.find(req.Msg.Id)
	if !ok {
		return nil, noSession(req.Msg.Id)
	}
	d.sessions.mu.Lock()
	ended := !s.Ended.IsZero()
	d.sessions.mu.Unlock()
	if ended || s.group == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("session %s has ended", s.ID))
	}
	n, err := s.group.Processes()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	// Told before the kill: the record of the session's end is its last.
	d.audit.Write(audit.Event{
		Kind: audit.Session, Agent: s.Agent, Session: s.ID, Task: s.Task, Message: "session stopped",
		Fields: map[string]string{"by": peerName(ctx)},
	})
	if err := s.group.Kill(); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&controlv1.StopSessionResponse{Killed: uint32(n)}), nil
}

// SessionSummary implements AdminService. Who started a session may ask for it.
func (d *Daemon) SessionSummary(ctx context.Context, req *connect.Request[controlv1.SessionSummaryRequest]) (*connect.Response[controlv1.SessionSummaryResponse], error) {
	s, ok := d.sessions.find(req.Msg.Id)
	if !ok {
		return nil, noSession(req.Msg.Id)
	}
	if peer, _ := control.PeerFrom(ctx); !d.isAdmin(peer) && peer.UID != s.UID {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("session %s belongs to another user", s.ID))
	}
	d.drainSession(s)
	answer := &controlv1.SessionSummaryResponse{Session: d.describe(s), Dropped: d.droppedOf(s.Agent)}
	for _, x := range s.denials.list() {
		advice := x.advice.Line
		if advice == "" && x.advice.Reason != "" {
			advice = "no line can: " + x.advice.Reason
		} else if advice != "" {
			advice = x.advice.Section + ": " + advice
		}
		answer.Denials = append(answer.Denials, &controlv1.Denial{
			Operation: x.operation, Object: x.object, Rule: x.rule, Count: x.count, Advice: advice,
		})
	}
	return connect.NewResponse(answer), nil
}

func problemsOf(problems policy.Problems) []*controlv1.Problem {
	var list []*controlv1.Problem
	for _, p := range problems {
		message := p.Message
		if p.Fix != "" {
			message += "; " + p.Fix
		}
		list = append(list, &controlv1.Problem{
			File: p.Pos.File, Line: uint32(p.Pos.Line), Column: uint32(p.Pos.Column),
			Message: message, Severity: string(p.Severity),
		})
	}
	return list
}
