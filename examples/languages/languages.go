// Package languages holds services in Node and Python that keep tenants apart, and
// a gateway in front of one. They are for copying: docs/guides/any-language.md says
// what each file is for. Its tests run them.
package languages

import "embed"

// Files are the programs, as a test writes them where it runs them.
//
//go:embed node/*.mjs python/*.py apache/*.conf
var Files embed.FS
