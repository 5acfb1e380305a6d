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
	out.allow(exportTime + exportStall)
	err = c.export.Export(ctx, out, tenant)
	out.allow(exportStall) // for what is buffered below
	if err != nil {
		if !out.begun {
			return answer{}, err
		}
		c.w.cause = err
		panic(http.ErrAbortHandler)
	}
	return answer{}, nil
}

// exportWriter begins the answer with the first piece, which it sends at once,
// and gives each piece a deadline of its own in place of the one for whole
// answers. In between there is none but the export's: with HTTP/2 a deadline
// that passes ends the answer, even while nothing is being written.
type exportWriter struct {
	w       *response
	control *http.ResponseController
	now     func() time.Time
	begun   bool
}

// Write implements io.Writer.
func (e *exportWriter) Write(b []byte) (int, error) {
	e.allow(exportStall)
	defer e.allow(exportTime + exportStall)
	if e.begun {
		return e.w.Write(b)
	}
	e.begun = true
	e.w.Header().Set("Content-Type", wire.AuditExportContentType)
	e.w.Header().Set("Content-Disposition", `attachment; filename="audit.ndjson"`)
	e.w.WriteHeader(http.StatusOK)
	n, err := e.w.Write(b)
	if err == nil {
		err = e.control.Flush()
	}
	return n, err
}

// allow moves the deadline of the connection, or of the stream.
func (e *exportWriter) allow(d time.Duration) {
	// Not every connection has deadlines; one that hasn't needs none moved.
	_ = e.control.SetWriteDeadline(e.now().Add(d))
}
