package unknown_test

import (
	"regexp"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/unknown"
)

func TestID(t *testing.T) {
	for like, shape := range map[string]string{
		"7":                                    `2[01]\d{8}`,
		"123456789":                            `2[01]\d{8}`,
		"1234567890123":                        `[1-9]{9}0[1-9]{3}`,
		"ord_1aZ":                              `ord_[1-9][a-z][A-Z]`,
		"6a1f00ca-93b3-4e6c-8d75-0a1b2c3d4e5f": `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
		"G":                                    `[A-Z]0?`,
		"":                                     `0`,
		"0-0":                                  `0-00`,
		"ä":                                    `ä0`,
	} {
		for range 100 {
			if got := unknown.ID(like); got == like || !regexp.MustCompile(`\A(?:`+shape+`)\z`).MatchString(got) {
				t.Fatalf("%q for %q", got, like)
			}
		}
	}
}
