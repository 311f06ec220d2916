// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bailiff.dev/bailiff/bpf"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

// ApplyPolicies implements AdminService.
func (d *Daemon) ApplyPolicies(ctx context.Context, req *connect.Request[controlv1.ApplyPoliciesRequest]) (*connect.Response[controlv1.ApplyPoliciesResponse], error) {
	d.policies.apply.Lock()
	defer d.policies.apply.Unlock()
	var fresh []storedDocument
	var names []string
	for _, f := range req.Msg.Files {
		docs, problems := policy.Parse(f.Name, f.Content)
		if problems.Has(policy.Error) {
			return connect.NewResponse(&controlv1.ApplyPoliciesResponse{Problems: problemsOf(problems)}), nil
		}
		parts := split(f.Name, string(f.Content), docs, req.Msg.AcceptDegraded)
		share(problems, pointers(parts))
		fresh = append(fresh, parts...)
		for i := range docs {
			names = append(names, docs[i].Name)
		}
	}
	if len(names) == 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the files hold no policies: to remove one, use `bailiff policy delete NAME`"))
	}
	c, ok := d.compile(d.policies.merge(fresh, req.Msg.Replace))
	if !ok {
		return connect.NewResponse(&controlv1.ApplyPoliciesResponse{Problems: problemsOf(c.problems)}), nil
	}
	answer := &controlv1.ApplyPoliciesResponse{Problems: problemsOf(d.policies.news(c.problems, fresh))}
	if err := d.applyChange(ctx, c, "policies applied", names); err != nil {
		return nil, applyError(err)
	}
	answer.Generation = d.policies.generation
	slices.Sort(names)
	answer.Policies = d.policyInfos(func(name string) bool {
		_, given := slices.BinarySearch(names, name)
		return given
	})
	return connect.NewResponse(answer), nil
}

// news returns the problems of documents that are being applied, and those of
// others that come of it: what was said of thousands before is not said again.
func (p *policies) news(problems policy.Problems, fresh []storedDocument) (list policy.Problems) {
	owner, before := owners(pointers(fresh)), map[policy.Problem]bool{}
	for _, problem := range p.problems {
		before[problem] = true
	}
	for _, problem := range problems {
		if !before[problem] || owner(problem.Pos) >= 0 {
			list = append(list, problem)
		}
	}
	return list
}

// applyError says that nothing changed.
func applyError(err error) error {
	code := connect.CodeInternal
	var full *bpf.CapacityError
	if errors.As(err, &full) {
		code = connect.CodeResourceExhausted
	}
	return connect.NewError(code, fmt.Errorf("%w (the policies that were in force still are)", err))
}

// DeletePolicy implements AdminService.
func (d *Daemon) DeletePolicy(ctx context.Context, req *connect.Request[controlv1.DeletePolicyRequest]) (*connect.Response[controlv1.DeletePolicyResponse], error) {
	d.policies.apply.Lock()
	defer d.policies.apply.Unlock()
	if req.Msg.Name == policy.Builtin {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("it is part of Bailiff and can't be deleted: see `bailiff policy show builtin`"))
	}
	rest := storedPolicies{storedSet: storedSet{Documents: slices.Clone(d.policies.stored.Documents)}}
	rest.Documents = slices.DeleteFunc(rest.Documents, func(s storedDocument) bool { return s.Name == req.Msg.Name })
	if len(rest.Documents) == len(d.policies.stored.Documents) {
		return nil, noPolicy(req.Msg.Name)
	}
	c, ok := d.compile(rest)
	if !ok {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("without it the others are wrong: %w", c.problems.Err()))
	}
	if err := d.applyChange(ctx, c, "policy deleted", []string{req.Msg.Name}); err != nil {
		return nil, applyError(err)
	}
	return connect.NewResponse(&controlv1.DeletePolicyResponse{Generation: d.policies.generation}), nil
}

func noPolicy(name string) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no policy %q: see `bailiff policy list`", name))
}

// ListPolicies implements AdminService.
func (d *Daemon) ListPolicies(context.Context, *connect.Request[controlv1.ListPoliciesRequest]) (*connect.Response[controlv1.ListPoliciesResponse], error) {
	d.policies.mu.RLock()
	generation := d.policies.generation
	d.policies.mu.RUnlock()
	return connect.NewResponse(&controlv1.ListPoliciesResponse{Policies: d.policyInfos(func(string) bool { return true }), Generation: generation}), nil
}

// GetPolicy implements AdminService.
func (d *Daemon) GetPolicy(_ context.Context, req *connect.Request[controlv1.GetPolicyRequest]) (*connect.Response[controlv1.GetPolicyResponse], error) {
	infos := d.policyInfos(func(name string) bool { return name == req.Msg.Name })
	d.policies.mu.RLock()
	defer d.policies.mu.RUnlock()
	for _, s := range d.policies.all() {
		if s.Name != req.Msg.Name {
			continue
		}
		answer := &controlv1.GetPolicyResponse{Document: []byte(s.Text)}
		if len(infos) > 0 { // else it has just been applied
			answer.Info = infos[0]
		}
		return connect.NewResponse(answer), nil
	}
	return nil, noPolicy(req.Msg.Name)
}

// all returns the documents in force, the built-in one first.
func (p *policies) all() []storedDocument {
	return append([]storedDocument{p.builtin}, p.stored.Documents...)
}

// policyInfos describes policies in force, by their names; the built-in one is first,
// the rest by name.
func (d *Daemon) policyInfos(wanted func(name string) bool) []*controlv1.PolicyInfo {
	p := &d.policies
	p.mu.RLock()
	defer p.mu.RUnlock()
	all := p.all()
	byName := map[string]*policy.Document{}
	for i := range p.docs {
		if wanted(p.docs[i].Name) {
			byName[p.docs[i].Name] = &p.docs[i]
		}
	}
	problems, owner := make([]policy.Problems, len(all)), owners(pointers(all))
	for _, problem := range p.problems {
		if i := owner(problem.Pos); i >= 0 && byName[all[i].Name] != nil {
			problems[i] = append(problems[i], problem)
		}
	}
	var infos []*controlv1.PolicyInfo
	for i := range all {
		s, own := &all[i], problems[i]
		doc := byName[s.Name]
		if doc == nil {
			continue
		}
		info := &controlv1.PolicyInfo{
			Name: doc.Name, Kind: string(doc.Kind), Subjects: doc.Subjects(), Mode: string(doc.Policy.Mode),
			Generation: s.Generation, Applied: timestamppb.New(s.Applied), Accepted: s.AcceptDegraded,
			Rules: uint32(len(doc.Files()) + len(doc.Network())),
		}
		switch {
		case doc.Name == policy.Builtin:
			info.Mode = "built in"
		case doc.Kind == policy.KindAgentPolicy && info.Mode == "":
			info.Mode = string(policy.Enforce)
		}
		info.Problems = problemsOf(own)
		info.Degraded = own.Has(policy.Degraded) || own.Has(policy.Unsupported)
		infos = append(infos, info)
	}
	return infos
}
