package jwks

import "encoding/hex"

// smallOrderY are the y coordinates, little-endian with the sign bit clear, of
// the points of edwards25519 whose order divides 8, in every encoding that
// fits 255 bits. They are what is left of any point multiplied by the order of
// the prime subgroup.
var smallOrderY = mustHex(
	"0000000000000000000000000000000000000000000000000000000000000000",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)

func mustHex(values ...string) [][]byte {
	out := make([][]byte, len(values))
	for i, v := range values {
		b, err := hex.DecodeString(v)
		if err != nil {
			panic(err)
		}
		out[i] = b
	}
	return out
}
