package grpcguard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/grpcguard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
)

// message is a request that is nothing but the tenant that it names.
type message = wrapperspb.StringValue

// world is a real gRPC server on loopback behind a guard, and a client.
type world struct {
	*testing.T
	*guardtest.Issuer
	guard *guard.Guard
	conn  *grpc.ClientConn
	calls int // that reached a method
	then  func(context.Context) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, Issuer: guardtest.NewIssuer(t), then: func(context.Context) error { return nil }}
	g, err := guard.New(guard.Config{Verifier: w.Verifier(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.guard = g
	read := credential.MustScopes("orders:read")
	tenant := func(m any) []string {
		if v, ok := m.(*message); ok && v.GetValue() != "" {
			return []string{v.GetValue()}
		}
		return nil
	}
	rules := grpcguard.Rules{
		"/orders.Orders/Get":   {Scopes: read, Tenant: tenant},
		"/orders.Orders/Plain": {},
		"/orders.Orders/Open":  {Open: true},
		"/orders.Orders/Watch": {Scopes: read, Tenant: tenant},
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(grpcguard.Unary(g, rules)), grpc.StreamInterceptor(grpcguard.Stream(g, rules)))
	server.RegisterService(w.service(), w)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	w.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.conn.Close() })
	return w
}

// service is written by hand what protoc would make.
func (w *world) service() *grpc.ServiceDesc {
	unary := func(name string) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
			in := new(message)
			if err := decode(in); err != nil {
				return nil, err
			}
			return around(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/orders.Orders/" + name}, func(ctx context.Context, _ any) (any, error) {
				w.calls++
				return new(message), w.then(ctx)
			})
		}}
	}
	return &grpc.ServiceDesc{
		ServiceName: "orders.Orders", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{unary("Get"), unary("Plain"), unary("Open"), unary("Forgotten")},
		Streams: []grpc.StreamDesc{{StreamName: "Watch", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			for {
				in := new(message)
				if err := s.RecvMsg(in); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				w.calls++
				if err := w.then(s.Context()); err != nil {
					return err
				}
				if err := s.SendMsg(in); err != nil {
					return err
				}
			}
		}}},
	}
}

func with(pairs ...string) metadata.MD { return metadata.Pairs(pairs...) }

func (w *world) call(method, tenant string, md metadata.MD) codes.Code {
	w.Helper()
	return w.answer(method, tenant, md).Code()
}

func (w *world) answer(method, tenant string, md metadata.MD) *status.Status {
	w.Helper()
	ctx := metadata.NewOutgoingContext(w.Context(), md)
	return status.Convert(w.conn.Invoke(ctx, "/orders.Orders/"+method, wrapperspb.String(tenant), new(message)))
}

func TestCallsAreHeldToTheirToken(t *testing.T) {
	w := newWorld(t)
	good := "Bearer " + w.Token("acme", "orders:read")
	for name, c := range map[string]struct {
		method, tenant string
		md             metadata.MD
		want           codes.Code
	}{
		"its own":                {"Get", "acme", with("authorization", good), codes.OK},
		"another's":              {"Get", "globex", with("authorization", good), codes.PermissionDenied},
		"none named":             {"Get", "", with("authorization", good), codes.InvalidArgument},
		"a method that names no": {"Plain", "globex", with("authorization", good), codes.OK},
		"no token":               {"Get", "acme", nil, codes.Unauthenticated},
		"another scheme":         {"Get", "acme", with("authorization", "Basic x"), codes.Unauthenticated},
		"two tokens":             {"Get", "acme", with("authorization", good, "authorization", good), codes.Unauthenticated},
		"two by a comma":         {"Get", "acme", with("authorization", good+", "+good), codes.Unauthenticated},
		"nonsense":               {"Get", "acme", with("authorization", "Bearer x"), codes.Unauthenticated},
		"without the scope":      {"Get", "acme", with("authorization", "Bearer "+w.Token("acme", "orders:write")), codes.PermissionDenied},
		"metadata that agrees":   {"Get", "acme", with("authorization", good, "x-tenant", "acme"), codes.OK},
		"metadata that differs":  {"Get", "acme", with("authorization", good, "x-tenant", "globex"), codes.PermissionDenied},
		"metadata of both":       {"Get", "acme", with("authorization", good, "x-tenant-id", "acme", "x-tenant-id", "globex"), codes.InvalidArgument},
		"no rule":                {"Forgotten", "acme", with("authorization", good), codes.PermissionDenied},
		"open":                   {"Open", "acme", nil, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.calls
			if got := w.call(c.method, c.tenant, c.md); got != c.want || (w.calls > before) != (c.want == codes.OK) {
				t.Errorf("%s, want %s; reached %d", got, c.want, w.calls-before)
			}
		})
	}
}

func TestACallWithoutOneTokenLeavesALine(t *testing.T) {
	w := newWorld(t)
	good := "Bearer " + w.Token("acme", "orders:read")
	for _, c := range []struct {
		md     metadata.MD
		reason string
	}{
		{nil, "no_token"},
		{with("authorization", good, "authorization", good), "several_tokens"},
		{with("authorization", good+","), "malformed"},
	} {
		w.call("Get", "acme", c.md)
		if got := w.guard.Stats().Denied[c.reason]; got != 1 {
			t.Errorf("%d lines of %q, want 1", got, c.reason)
		}
	}
}

func TestChecksBehindAreAnsweredAsTheyShould(t *testing.T) {
	w := newWorld(t)
	good := with("authorization", "Bearer "+w.Token("acme", "orders:read"), "x-request-id", "r-1")
	object := func(tenant string) func(context.Context) error {
		return func(ctx context.Context) error {
			if id := guard.RequestID(ctx); id != "r-1" {
				t.Errorf("request %q", id)
			}
			return guard.Check(ctx, guard.Resource{Tenant: credential.MustTenant(tenant), Type: "order", ID: "7"})
		}
	}
	for name, c := range map[string]struct {
		then func(context.Context) error
		want codes.Code
	}{
		"its own":   {object("acme"), codes.OK},
		"another's": {object("globex"), codes.NotFound},
		"busy":      {func(context.Context) error { return fmt.Errorf("a cache: %w", guard.ErrBusy) }, codes.ResourceExhausted},
		"its error": {func(context.Context) error { return status.Error(codes.Aborted, "x") }, codes.Aborted},
	} {
		if w.then = c.then; w.call("Get", "acme", good) != c.want {
			t.Errorf("%s: not %s", name, c.want)
		}
	}
	w.then = func(ctx context.Context) error { w.Pass(5 * time.Minute); return object("acme")(ctx) }
	if got := w.call("Get", "acme", good); got != codes.Unauthenticated {
		t.Errorf("expired meanwhile: %s", got)
	}
	w.then = func(ctx context.Context) error {
		return guard.Check(ctx, guard.Resource{Tenant: credential.MustTenant("acme")})
	}
	if got := w.call("Open", "acme", nil); got != codes.Unauthenticated {
		t.Errorf("an object in an open method: %s", got)
	}
}

// Nobody learns whose an object is, or that there is one, however little of it the
// check names.
func TestAnothersIsAnsweredLikeNone(t *testing.T) {
	w := newWorld(t)
	good := with("authorization", "Bearer "+w.Token("acme", "orders:read"))
	check := func(r guard.Resource) func(context.Context) error {
		return func(ctx context.Context) error { return guard.Check(ctx, r) }
	}
	w.then = func(context.Context) error { return guard.ErrNotFound }
	none := w.answer("Get", "acme", good)
	if none.Code() != codes.NotFound {
		t.Fatal(none)
	}
	for name, then := range map[string]func(context.Context) error{
		"another's":            check(guard.Resource{Tenant: credential.MustTenant("globex"), Type: "order", ID: "7"}),
		"another's, not named": check(guard.Resource{Tenant: credential.MustTenant("globex")}),
		"nobody's":             check(guard.Resource{Type: "order", ID: "7"}),
		"nobody's, not named":  check(guard.Resource{}),
		"another's, with a frame": func(ctx context.Context) error {
			return fmt.Errorf("orders: %w", check(guard.Resource{Tenant: credential.MustTenant("globex")})(ctx))
		},
	} {
		w.then = then
		if got := w.answer("Get", "acme", good); got.String() != none.String() {
			t.Errorf("%s: %s, and %s for none", name, got, none)
		}
	}
}

// What a server sends by itself is held to the token too.
func TestAServersStreamEndsWithItsToken(t *testing.T) {
	w := newWorld(t)
	ctx := metadata.NewOutgoingContext(t.Context(), with("authorization", "Bearer "+w.Token("acme", "orders:read")))
	stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/orders.Orders/Watch")
	if err != nil {
		t.Fatal(err)
	}
	w.then = func(context.Context) error { w.Pass(5 * time.Minute); return nil }
	if err := stream.SendMsg(wrapperspb.String("acme")); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(message)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%v", err)
	}
}

// A stream is let in once, and each message is looked at.
func TestEachMessageOfAStreamIsHeldToTheToken(t *testing.T) {
	for name, c := range map[string]struct {
		second string
		before func(*world)
		want   codes.Code
	}{
		"its own":   {"acme", func(*world) {}, codes.OK},
		"another's": {"globex", func(*world) {}, codes.PermissionDenied},
		"expired":   {"acme", func(w *world) { w.Pass(5 * time.Minute) }, codes.Unauthenticated},
		"suspended": {"acme", func(w *world) { w.RevokeTenant("acme") }, codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ctx := metadata.NewOutgoingContext(t.Context(), with("authorization", "Bearer "+w.Token("acme", "orders:read")))
			stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/orders.Orders/Watch")
			if err != nil {
				t.Fatal(err)
			}
			say := func(tenant string) codes.Code {
				if err := stream.SendMsg(wrapperspb.String(tenant)); err != nil {
					t.Fatal(err)
				}
				return status.Code(stream.RecvMsg(new(message)))
			}
			if got := say("acme"); got != codes.OK {
				t.Fatal(got)
			}
			c.before(w)
			if got := say(c.second); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	w := newWorld(t)
	stream, err := w.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/orders.Orders/Watch")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(message)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
}
