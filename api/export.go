package api

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Exporter writes the audit trail; *auditlog.Keeper is one. The zero tenant
// stands for the whole broker, credential.System for its own chains.
type Exporter interface {
	Export(ctx context.Context, w io.Writer, tenant credential.Tenant) error
}

const (
	// exportTime bounds an export.
	exportTime = 10 * time.Minute
	// exportStall is how long a client may take to accept the next piece.
	exportStall = 30 * time.Second
)

// exportAudit streams an export. One that breaks off breaks the connection, so
// that nobody takes a part for the whole.
func exportAudit(c *call) (answer, error) {
	tenant, one, err := c.auditTenant()
	if err != nil {
		return answer{}, err
	}
	if one && tenant.IsZero() {
		tenant = credential.System
	}
	if c.r.Method == http.MethodHead {
		c.w.Header().Set("Content-Type", wire.AuditExportContentType)
		return answer{status: http.StatusOK}, nil
	}
	end, err := c.exports.begin(c.by.Subject)
	if err != nil {
		return answer{}, err
	}
	defer end()
	ctx, cancel := context.WithTimeout(c.r.Context(), exportTime)
	defer cancel()
	out := &exportWriter{w: c.w, control: http.NewResponseController(c.w), now: time.Now}
	if err := c.export.Export(ctx, out, tenant); err != nil {
		if !out.begun {
			return answer{}, err
		}
		c.w.cause = err
		panic(http.ErrAbortHandler)
	}
	return answer{}, nil
}

// exportWriter begins the answer with the first piece and gives each piece its
// own deadline in place of the one for whole answers.
type exportWriter struct {
	w       *response
	control *http.ResponseController
	now     func() time.Time
	begun   bool
}

// Write implements io.Writer.
func (e *exportWriter) Write(b []byte) (int, error) {
	if !e.begun {
		e.begun = true
		e.w.Header().Set("Content-Type", wire.AuditExportContentType)
		e.w.Header().Set("Content-Disposition", `attachment; filename="audit.ndjson"`)
		e.w.WriteHeader(http.StatusOK)
	}
	// Not every connection has deadlines; one that hasn't needs none moved.
	_ = e.control.SetWriteDeadline(e.now().Add(exportStall))
	return e.w.Write(b)
}
