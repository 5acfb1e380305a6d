package leaky

// Leak is one place that forgets the tenant.
type Leak string

// The leaks.
const (
	Read            Leak = "read"             // an object by id, without a check
	ListFilter      Leak = "list-filter"      // a list without the filter
	IDs             Leak = "ids"              // a list of everybody's ids, to go through
	Existence       Leak = "existence"        // 403 for what others have, 404 for what nobody has
	CacheKey        Leak = "cache-key"        // an answer cached under a key without the tenant
	CacheKeyBare    Leak = "cache-key-bare"   // an answer cached under a key without the tenant and the id
	IgnoredID       Leak = "ignored-id"       // a route by id whose query has no condition at all
	Export          Leak = "export"           // a file that is written in the background, of all tenants
	SearchIndex     Leak = "search-index"     // an index that knows no tenants
	HeaderBelieved  Leak = "header-believed"  // the tenant is what a header says
	Batch           Leak = "batch"            // many by id, without a check
	StalePermission Leak = "stale-permission" // what was shared once stays open
	Join            Leak = "join"             // what an object refers to, without a check
	AdminRoute      Leak = "admin-route"      // a route for operators, open to everybody
	ErrorMessage    Leak = "error-message"    // a conflict shows what is there
	OwnerNamed      Leak = "owner-named"      // "not found" says whose it is
	ETag            Leak = "etag"             // 304 before it is looked whose it is
	Update          Leak = "update"           // a change without a check
	Delete          Leak = "delete"           // a removal without a check
	NoToken         Leak = "no-token"         // a route without the guard
	SubRoute        Leak = "sub-route"        // what belongs to an object, without a check
	OpenSubRoute    Leak = "open-sub-route"   // the same, also without a token
	PlantedBody     Leak = "planted-body"     // what is made belongs to whom the body names
	PlantedHeader   Leak = "planted-header"   // what is made belongs to whom a header names
	PlantedBelow    Leak = "planted-below"    // what refers to an object is listed with it, whoever made it
)

// All are all leaks.
var All = []Leak{
	Read, ListFilter, IDs, Existence, CacheKey, CacheKeyBare, IgnoredID, Export, SearchIndex, HeaderBelieved, Batch, StalePermission,
	Join, AdminRoute, ErrorMessage, OwnerNamed, ETag, Update, Delete, NoToken, SubRoute, OpenSubRoute,
	PlantedBody, PlantedHeader, PlantedBelow,
}
