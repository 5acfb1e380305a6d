package openapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// Where what refers to an object is listed below it, others must not put there what
// its owner is shown; of the same shape without such a reference nothing is derived.
func TestAListBelowAnObject(t *testing.T) {
	lines := `  /orders/{orderId}/lines:
    parameters: [{name: orderId, in: path, required: true, schema: {type: string}}]
    get: {responses: {"200": {description: All., content: {application/json: {schema: {type: array, items: {$ref: "#/components/schemas/Line"}}}}}}}
  /lines:
    post:
      requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/Line"}}}}
      responses: {"201": {description: Made., content: {application/json: {schema: {$ref: "#/components/schemas/Line"}}}}}
  /lines/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {responses: {"200": {description: One., content: {application/json: {schema: {$ref: "#/components/schemas/Line"}}}}}}
    delete: {responses: {"204": {description: Gone.}}}
`
	schema := "        # properties\n    Line: {type: object, properties: {id: {type: string, readOnly: true}, text: {type: string}, order_id: {type: string}}}\n"
	of := func(schema string) []probe.Attempt {
		return with(t, "  # more\n", lines, "        # properties\n", schema).Objects[1].Try
	}
	got := of(schema)
	if len(got) < 2 || fmt.Sprintf("%s %s %v %v %v %s", got[1].Name, got[1].Request, got[1].Body, got[1].Save, got[1].Seen, got[1].Cleanup[0].Request) !=
		"plant-lines POST /lines map[order_id:{id} text:{planted}] map[made:/id] [GET /orders/{id}/lines GET /lines/{made}] DELETE /lines/{made}" {
		t.Errorf("%+v", got)
	}
	for _, a := range of(strings.Replace(schema, "order_id", "number", 1)) {
		if len(a.Seen) > 0 {
			t.Errorf("%+v", a)
		}
	}
}
