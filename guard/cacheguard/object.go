package cacheguard

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// MaxObjectName bounds the name of an object in bytes: what S3, Google Cloud
// Storage and Azure take.
const MaxObjectName = 1024

// ErrObjectName means: a path or name that may mean another one somewhere.
var ErrObjectName = errors.New("cacheguard: not a name of an object")

// objectRoot is the folder of all tenants in a bucket.
const objectRoot = "tenants/"

// ObjectPrefix is where all objects of the token's tenant are, for listings:
// "tenants/acme/". It ends in a slash, so that acme's list has nothing of acme2.
//
// With an error comes a prefix that no object has, as Key's are: an empty one, where
// the error was forgotten, would list the whole bucket.
//
// Errors: those of guard.Token.
func ObjectPrefix(ctx context.Context) (string, error) {
	tenant, err := guard.Tenant(ctx)
	if err != nil {
		return objectRoot + nobody() + "/", err
	}
	return objectRoot + tenant.String() + "/", nil
}

// ObjectName is the name in object storage of something of the token's tenant:
// ObjectPrefix and the path as it is. A path is UTF-8, its segments are
// separated by single slashes, none is empty, "." or "..", and it holds no
// backslash and no control character. A path that would be another, or none, if a
// proxy on the way undid its escapes (%2e, %2f, %252f…) is refused.
//
// With an error comes a name that no object has, as Key's are.
//
// Errors: those of guard.Token; ErrObjectName; ErrTooLong.
func ObjectName(ctx context.Context, path string) (string, error) {
	tenant, err := guard.Tenant(ctx)
	if err == nil {
		var name string
		if name, err = objectName(tenant, path); err == nil {
			return name, nil
		}
	}
	return objectRoot + nobody() + "/none", err
}

func objectName(tenant credential.Tenant, path string) (string, error) {
	if len(path) > MaxObjectName-len(objectRoot)-len(tenant.String())-1 {
		return "", fmt.Errorf("%w: a name of more than %d bytes", ErrTooLong, MaxObjectName)
	}
	if err := checkPath(path); err != nil {
		return "", err
	}
	return objectRoot + tenant.String() + "/" + path, nil
}

// checkPath looks at a path as it is, and as it reads when something on the way
// undoes its escapes, once or more often.
func checkPath(path string) error {
	slashes := strings.Count(path, "/")
	for {
		if err := checkPlain(path); err != nil {
			return err
		}
		if strings.Count(path, "/") != slashes {
			return fmt.Errorf("%w: an escaped separator", ErrObjectName)
		}
		undone := undo(path)
		if undone == path {
			return nil
		}
		path = undone // shorter, so this ends
	}
}

func checkPlain(path string) error {
	if !utf8.ValidString(path) {
		return fmt.Errorf("%w: not UTF-8", ErrObjectName)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fmt.Errorf("%w: a segment that is empty or of dots", ErrObjectName)
		}
	}
	for _, c := range path {
		if c < ' ' || 0x7f <= c && c < 0xa0 || c == '\u2028' || c == '\u2029' || c == '\\' {
			return fmt.Errorf("%w: a backslash or a control character", ErrObjectName)
		}
	}
	return nil
}

// undo undoes each escape (RFC 3986 section 2.1), and leaves what is none.
func undo(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(c))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// ParseObjectName reads a name that ObjectName has made: whose the object is,
// and its path. Any other text is ErrObjectName.
func ParseObjectName(name string) (credential.Tenant, string, error) {
	rest, rooted := strings.CutPrefix(name, objectRoot)
	id, path, ended := strings.Cut(rest, "/")
	if !rooted || !ended || len(name) > MaxObjectName {
		return credential.Tenant{}, "", ErrObjectName
	}
	tenant, err := credential.ParseTenant(id)
	if err != nil {
		return credential.Tenant{}, "", fmt.Errorf("%w: %w", ErrObjectName, err)
	}
	if err := checkPath(path); err != nil {
		return credential.Tenant{}, "", err
	}
	return tenant, path, nil
}

// CheckObject is guard.Check for the name of an object that came from elsewhere:
// a request, a message, a listing, a row. A name that no tenant has is denied.
//
// Errors: those of guard.Check.
func CheckObject(ctx context.Context, name string) error {
	owner, _, err := ParseObjectName(name)
	if err != nil {
		owner = credential.Tenant{} // nobody's
	}
	id := name
	if len(id) > MaxObjectName {
		id = id[:MaxObjectName]
	}
	return guard.Check(ctx, guard.Resource{Tenant: owner, Type: "object", ID: id})
}
