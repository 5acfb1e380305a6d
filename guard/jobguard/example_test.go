package jobguard_test

import (
	"context"
	"log/slog"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/jobguard"
)

// Job is a message with the token that its producer put in.
type Job struct{ Customer, OrderID, AccessToken string }

// Tenant implements jobguard.Message.
func (j *Job) Tenant() string { return j.Customer }

type fromMessage struct{}

func (fromMessage) Token(_ context.Context, j *Job) (string, error) { return j.AccessToken, nil }

type deadLetters struct{}

func (deadLetters) Park(_ context.Context, j *Job, p jobguard.Parked) error {
	slog.Warn("parked", "order", j.OrderID, "reason", p.Reason, "txn", p.Decision.Txn)
	return nil
}

// A worker that sends orders. The order is checked where it was found.
func Example() {
	consume := func(ctx context.Context, g *guard.Guard, jobs <-chan *Job, retry func(*Job, error)) error {
		consumer, err := jobguard.New(jobguard.Config[*Job]{
			Guard: g, Tokens: fromMessage{}, Parking: deadLetters{},
			Handle: func(ctx context.Context, j *Job) error {
				var found guard.Resource // …of the order, from the database…
				return guard.Check(ctx, found)
			},
		})
		if err != nil {
			return err
		}
		for job := range jobs {
			if err := consumer.Consume(ctx, job); err != nil {
				retry(job, err)
			}
		}
		return nil
	}
	_ = consume
}
