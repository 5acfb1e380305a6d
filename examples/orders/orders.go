package orders

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/cacheguard"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// Service answers for orders.
type Service struct {
	log     *slog.Logger
	guard   *guard.Guard
	pool    *pgxpool.Pool
	cache   *cacheguard.Cache[Order]
	closers []func()
}

// Order is what a tenant keeps. It knows whose it is, and doesn't tell.
type Order struct {
	ID   string `json:"id"`
	Note string `json:"note"`

	tenant credential.Tenant
}

// Handler has every route behind the guard, with the scope that it needs.
func (s *Service) Handler() http.Handler {
	read := guard.Route{Scopes: credential.MustScopes("orders:read")}
	write := guard.Route{Scopes: credential.MustScopes("orders:write")}
	mux := http.NewServeMux()
	mux.Handle("POST /orders", s.guard.Handler(write, s.answer(s.create)))
	mux.Handle("GET /orders", s.guard.Handler(read, s.answer(s.list)))
	mux.Handle("GET /orders/{id}", s.guard.Handler(read, s.answer(s.read)))
	mux.Handle("PUT /orders/{id}", s.guard.Handler(write, s.answer(s.update)))
	mux.Handle("DELETE /orders/{id}", s.guard.Handler(write, s.answer(s.cancel)))
	return mux
}

// answer is a handler of a function that returns what to answer. What another
// tenant has is answered like what nobody has.
func (s *Service) answer(f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := f(r)
		switch {
		case errors.Is(err, errBody):
			http.Error(w, err.Error(), http.StatusBadRequest)
		case errors.Is(err, pgx.ErrNoRows):
			guard.Refuse(w, r, guard.ErrNotFound)
		case err != nil:
			if denied := (*guard.Denied)(nil); !errors.As(err, &denied) { // which has a line of its own
				s.log.ErrorContext(r.Context(), "orders", "error", err, "request_id", guard.RequestID(r.Context()))
			}
			guard.Refuse(w, r, err)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(value) // the client may be gone
		}
	})
}

var errBody = errors.New("an order has a note and nothing else")

// note reads the body: what else a client sends, such as an id or a tenant, is no
// part of an order, and neither is a second body. PostgreSQL's text has no NUL.
func note(r *http.Request) (string, error) {
	var sent struct {
		Note *string `json:"note"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&sent); err != nil || sent.Note == nil || d.More() || strings.Contains(*sent.Note, "\x00") {
		return "", errBody
	}
	return *sent.Note, nil
}

// one runs a statement that answers with one order, in the token's tenant's rows.
func (s *Service) one(ctx context.Context, sql string, args ...any) (o Order, err error) {
	err = pgguard.WithTenant(ctx, s.pool, func(tx pgx.Tx) error {
		var tenant string
		if err := tx.QueryRow(ctx, sql, args...).Scan(&tenant, &o.ID, &o.Note); err != nil {
			return err
		}
		var err error
		o.tenant, err = credential.ParseTenant(tenant)
		return err
	})
	return o, err
}

// named is the order that the path names, and the key under which it is cached.
func named(r *http.Request) (id pgtype.UUID, key string, err error) {
	if err := id.Scan(r.PathValue("id")); err != nil {
		return id, "", pgx.ErrNoRows // as for any id that nobody has
	}
	key, err = cacheguard.Key(r.Context(), "order", id.String())
	return id, key, err
}

func (s *Service) create(r *http.Request) (any, error) {
	text, err := note(r)
	if err != nil {
		return nil, err
	}
	tenant, err := guard.Tenant(r.Context())
	if err != nil {
		return nil, err
	}
	return s.one(r.Context(), "INSERT INTO orders (tenant, note) VALUES ($1, $2) RETURNING tenant, id::text, note", tenant.String(), text)
}

// list forgets to say whose orders it wants: the database doesn't.
func (s *Service) list(r *http.Request) (any, error) {
	ctx, found := r.Context(), []Order{}
	err := pgguard.WithTenant(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT id::text, note FROM orders ORDER BY id LIMIT 100")
		if err != nil {
			return err
		}
		found, err = pgx.AppendRows(found, rows, func(row pgx.CollectableRow) (o Order, err error) {
			return o, row.Scan(&o.ID, &o.Note)
		})
		return err
	})
	return found, err
}

// read answers from the cache. The check leaves a line about who saw what.
func (s *Service) read(r *http.Request) (any, error) {
	id, key, err := named(r)
	if err != nil {
		return nil, err
	}
	o, err := s.cache.Load(r.Context(), key, func(ctx context.Context) (Order, error) {
		return s.one(ctx, "SELECT tenant, id::text, note FROM orders WHERE id = $1", id)
	})
	if err != nil {
		return nil, err
	}
	return o, guard.Check(r.Context(), guard.Resource{Tenant: o.tenant, Type: "order", ID: o.ID})
}

func (s *Service) update(r *http.Request) (any, error) {
	text, err := note(r)
	if err != nil {
		return nil, err
	}
	return s.change(r, "UPDATE orders SET note = $2 WHERE id = $1 RETURNING tenant, id::text, note", text)
}

func (s *Service) cancel(r *http.Request) (any, error) {
	return s.change(r, "DELETE FROM orders WHERE id = $1 RETURNING tenant, id::text, note")
}

// change forgets what was cached, once the change is there for all.
func (s *Service) change(r *http.Request, sql string, args ...any) (any, error) {
	id, key, err := named(r)
	if err != nil {
		return nil, err
	}
	o, err := s.one(r.Context(), sql, append([]any{id}, args...)...)
	if err != nil {
		return nil, err
	}
	return o, s.cache.Delete(r.Context(), key)
}
