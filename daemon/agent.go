// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// agentService is what a session may ask for.
type agentService struct{ *Daemon }

// Session implements AgentService.
func (a agentService) Session(ctx context.Context, _ *connect.Request[controlv1.SessionRequest]) (*connect.Response[controlv1.SessionResponse], error) {
	peer, ok := control.PeerFrom(ctx)
	if !ok {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("the caller is unknown"))
	}
	id, err := a.sessionOf(peer)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	answer := &controlv1.SessionResponse{}
	if s, ok := a.sessions.find(id); ok {
		answer.Session = a.describe(s)
	}
	return connect.NewResponse(answer), nil
}
