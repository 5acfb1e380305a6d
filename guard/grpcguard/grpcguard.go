// Package grpcguard puts a guard.Guard in front of a gRPC server: a token in the
// metadata of each call, as RFC 6750 has it in a header, and guard.Check in the
// methods behind.
//
//	rules := grpcguard.Rules{
//		"/orders.Orders/Get":            {Scopes: read, Tenant: func(m any) []string { return []string{m.(*pb.GetRequest).GetTenant()} }},
//		"/grpc.health.v1.Health/Check": {Open: true},
//	}
//	grpc.NewServer(
//		grpc.UnaryInterceptor(grpcguard.Unary(g, rules)),
//		grpc.StreamInterceptor(grpcguard.Stream(g, rules)),
//	)
//
// A method that no rule names is refused: a new one has to be thought of.
package grpcguard

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Rules say what each method asks for, by its full name, "/package.Service/Method".
type Rules map[string]Rule

// Rule is what one method asks for beyond a good token.
type Rule struct {
	// Scopes that the token needs, all of them.
	Scopes credential.Scopes
	// Tenant returns every tenant that a message of the client names: exactly one,
	// the token's, lets it through. It is asked for each message of a stream. Nil:
	// messages name none.
	Tenant func(message any) []string
	// Open methods take no token, and guard.Check denies in them.
	Open bool
}

// Unary guards calls with one message.
func Unary(g *guard.Guard, rules Rules) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		rule, ctx, err := admit(ctx, g, rules, info.FullMethod)
		if err == nil {
			err = rule.check(ctx, req)
		}
		if err != nil {
			return nil, Error(err)
		}
		answer, err := next(ctx, req)
		return answer, Error(err)
	}
}

// Stream guards streams. Each message that the client sends is held to the token
// of the stream, which has to be good still.
func Stream(g *guard.Guard, rules Rules) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		rule, ctx, err := admit(stream.Context(), g, rules, info.FullMethod)
		if err != nil {
			return Error(err)
		}
		return Error(next(srv, &guarded{stream, ctx, rule}))
	}
}

type guarded struct {
	grpc.ServerStream
	ctx  context.Context //nolint:containedctx // a grpc.ServerStream has one
	rule Rule
}

// Context implements grpc.ServerStream.
func (s *guarded) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *guarded) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if err := s.rule.check(s.ctx, m); err != nil {
		return Error(err)
	}
	return nil
}

// SendMsg implements grpc.ServerStream: what a token no longer opens is not sent.
func (s *guarded) SendMsg(m any) error {
	if !s.rule.Open {
		if _, err := guard.Token(s.ctx); err != nil {
			return Error(err)
		}
	}
	return s.ServerStream.SendMsg(m)
}

// check holds a message to the token, which may have ended meanwhile.
func (r Rule) check(ctx context.Context, message any) error {
	switch {
	case r.Open:
		return nil
	case r.Tenant == nil:
		_, err := guard.Token(ctx)
		return err
	}
	return guard.SameTenant(ctx, "message", r.Tenant(message)...)
}

// errNoRule is what a method without a rule is answered with.
var errNoRule = status.Error(codes.PermissionDenied, "no rule for this method")

// admit verifies the token of a call, with its scopes and the tenants that its
// metadata names.
func admit(ctx context.Context, g *guard.Guard, rules Rules, method string) (Rule, context.Context, error) {
	rule, known := rules[method]
	switch {
	case !known:
		return rule, nil, errNoRule
	case rule.Open:
		return rule, ctx, nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	ctx, err := g.EnterBearer(ctx, md.Get("authorization"), requestID(md))
	if err != nil {
		return rule, nil, err
	}
	for _, name := range g.TenantHeaders() {
		if said := md.Get(name); len(said) > 0 {
			if err := guard.SameTenant(ctx, "metadata", said...); err != nil {
				return rule, nil, err
			}
		}
	}
	if err := guard.CheckScopes(ctx, rule.Scopes); err != nil {
		return rule, nil, err
	}
	return rule, ctx, nil
}

// requestID is the client's, if it is plain.
func requestID(md metadata.MD) string {
	if sent := md.Get("x-request-id"); len(sent) == 1 && guard.PlainRequestID(sent[0]) {
		return sent[0]
	}
	return ""
}

// Error turns an error of guard into a status that tells a client no more than it
// may know: another tenant's object is answered like none, NotFound. Others are
// returned as they are.
func Error(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, guard.ErrDiffers), errors.Is(err, guard.ErrInside):
		return status.Error(codes.PermissionDenied, "the call is for another tenant than its token")
	case errors.Is(err, guard.ErrNotOnce):
		return status.Error(codes.InvalidArgument, "the message names no tenant, or several")
	case errors.Is(err, guard.ErrCrossing), errors.Is(err, guard.ErrNoTenant), errors.Is(err, guard.ErrNotFound):
		return status.Error(codes.NotFound, "not found")
	case errors.Is(err, guard.ErrScope):
		return status.Error(codes.PermissionDenied, "the token lacks a scope that is needed here")
	case errors.Is(err, guard.ErrNoToken):
		return status.Error(codes.Unauthenticated, "a token is needed")
	case errors.Is(err, guard.ErrBusy):
		return status.Error(codes.ResourceExhausted, "too much is asked for at once")
	case errors.Is(err, verifier.ErrUnavailable):
		return status.Error(codes.Unavailable, "tokens can't be verified now")
	case errors.Is(err, guard.ErrSeveral):
		return status.Error(codes.Unauthenticated, "the metadata holds not exactly one bearer token")
	case verifier.Reason(err) != "other":
		return status.Error(codes.Unauthenticated, "the token is not accepted")
	}
	return err
}
