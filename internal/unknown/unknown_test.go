package unknown_test

import (
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/unknown"
)

const (
	beyond32 = `2[01]\d{8}` // no id of 32 bits is given out there
	beyond64 = `91\d{17}`   // nor one of 64
)

func TestID(t *testing.T) {
	for like, k := range map[string]struct {
		shape   string
		counted bool
	}{
		// What was given out in order.
		"7":                                     {beyond32, true},
		"123456789":                             {beyond32, true},
		"inv_1042":                              {`inv_` + beyond32, true},
		"ord_7":                                 {`ord_` + beyond32, true},
		"ord_1aZ":                               {`ord_` + beyond32 + `aZ`, true},
		"A1042":                                 {`A` + beyond32, true},
		"2024-00017":                            {`2024-` + beyond32, true},
		"INV-2024-000000000000017":              {`INV-2024-00000` + beyond32, true},
		"1042/2024":                             {`1042/` + beyond32, true},
		"4500123456":                            {beyond64, true},
		"1000000123":                            {beyond64, true},
		"1234567890123":                         {beyond64, true},
		"inv_4500123456":                        {`inv_(` + beyond64 + `)`, true},
		"175928847299117063":                    {beyond64, true},
		"1759288472991170635":                   {beyond64, true},
		"10000000000000000000017":               {`9\d{22}`, true},
		"00000000-0000-4000-8000-00000000002a":  {`00000000-0000-4000-8000-0` + beyond32 + `a`, true},
		"G":                                     {`G` + beyond32, true},
		"abcdefg":                               {`abcdefg` + beyond32, true},
		"":                                      {beyond32, true},
		"0-0":                                   {`0-` + beyond32, true},
		"ä":                                     {`ä` + beyond32, true},
		"a3f9c2e1":                              {`a3f9c2e` + beyond32, true},
		"1042-great-shoes-for-the-summer":       {beyond32 + `-great-shoes-for-the-summer`, true},
		"great-shoes-for-the-summer-1042":       {`great-shoes-for-the-summer-` + beyond32, true},
		"great-shoes-for-the-summer-p1042":      {`great-shoes-for-the-summer-p` + beyond32, true},
		"1042-great-3d-shoes-for-the-summer":    {beyond32 + `-great-3d-shoes-for-the-summer`, true},
		"3d-shoes-for-the-summer-and-fall-1042": {`3d-shoes-for-the-summer-and-fall-` + beyond32, true},
		"iPhone-3d-case-for-the-summer-1042":    {`iPhone-3d-case-for-the-summer-` + beyond32, true},
		// What was drawn.
		"6a1f00ca-9313-4666-8175-0a1b2c3d4e5f": {`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}`, false},
		"6a1f00ca-93b3-4e6c-8d75-0a1b2c3d4e5f": {`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}`, false},
		"6A1F00CA-93B3-4E6C-8D75-0A1B2C3D4E5F": {`[0-9A-F]{8}-[0-9A-F]{4}-4[0-9A-F]{3}-8[0-9A-F]{3}-[0-9A-F]{12}`, false},
		"507f1f77bcf86cd799439011":             {`[0-9a-f]{24}`, false},
		"01ARZ3NDEKTSV4RRFFQ69G5FAV":           {`0[0-9A-HJKMNP-TV-Z]{25}`, false},
		"ord_JBSWY3DPEHPK3PXPJBSW":             {`ord_[A-Z2-7]{20}`, false},
		"ord_kzXw9AbQ2mLpTrEv":                 {`ord_[A-Za-z1-9]{16}`, false},
		"dQw4w9WgXcQ":                          {`[A-Za-z1-9]{11}`, false},
		"93485729384752938475293":              {`[1-9]{23}`, false},
		"ord_x7Qm-17-aB3kK9Tz5wLq2R":           {`ord_[A-Za-z0-9]{4}-[0-9]{2}-[A-Za-z0-9]{14}`, false},
		"ord_QmxKtTzbLwqRsYfGhJpVc7":           {`ord_[A-Za-z]{21}[0-9]`, false},
		"a-slug-of-somebody":                   {`[a-z]-[a-z]{4}-[a-z]{2}-[a-z]{8}`, false},
	} {
		whole := regexp.MustCompile(`\A(?:` + k.shape + `)\z`)
		for range 100 {
			if got := unknown.ID(like); got == like || !whole.MatchString(got) {
				t.Fatalf("%q for %q", got, like)
			}
		}
		if got := unknown.Counted(like); got != k.counted {
			t.Errorf("%q counted: %v", like, got)
		}
	}
}

// What changes something is tried with ids only of which so much was drawn that
// nobody can have them.
func TestBits(t *testing.T) {
	for like, want := range map[string]int{
		"7": 27, "inv_1042": 27, "4500123456": 56, "ord_7": 27, "": 27,
		"10000000000000000000017":              73,
		"dQw4w9WgXcQ":                          46,
		"6a1f33ca-93b3-4e6c-8d75-1a1b2c3d4e5f": 86,
		"ord_JBSWY3DPEHPK3PXPJBSW":             85,
	} {
		if got := unknown.Bits(like); got != want {
			t.Errorf("%q: %d bits, want %d", like, got, want)
		}
	}
}

// The numbers that take a number's place are of what a column of its size holds.
func TestTheNumbersFit(t *testing.T) {
	for like, bits := range map[string]uint{"1": 31, "999999999": 31, "1000000000": 63, "1759288472991170635": 63} {
		most := new(big.Int).Lsh(big.NewInt(1), bits)
		for range 1000 {
			made, ok := new(big.Int).SetString(unknown.ID(like), 10)
			if !ok || made.Cmp(most) >= 0 || strings.HasPrefix(made.String(), "-") {
				t.Fatalf("%s for %s", made, like)
			}
		}
	}
}
