package probe

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
)

// Bounds of what is unpacked, beside limits.body, which holds for all of it.
const (
	maxLayers  = 2   // a file that is compressed, sent compressed
	maxEntries = 100 // files of one archive
)

// unpack returns what is in an answer that is compressed, as exports are: gzip,
// or an archive (zip) with its names. At most limit bytes come out; whole is
// false where there would be more, or where it does not unpack.
func unpack(body []byte, limit int) (plain []byte, whole bool) {
	whole = true
	for range maxLayers {
		var ok bool
		switch {
		case bytes.HasPrefix(body, []byte("\x1f\x8b\x08")):
			body, ok = gunzip(body, limit)
		case bytes.HasPrefix(body, []byte("PK\x03\x04")):
			body, ok = unzip(body, limit)
		default:
			return body, whole
		}
		whole = whole && ok
	}
	return body, whole
}

func gunzip(body []byte, limit int) ([]byte, bool) {
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return body, false
	}
	return upTo(r, limit)
}

// upTo reads at most limit bytes; what can be read of something broken is worth a
// look too.
func upTo(r io.Reader, limit int) ([]byte, bool) {
	plain, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if len(plain) > limit {
		return plain[:limit], false
	}
	return plain, err == nil
}

func unzip(body []byte, limit int) ([]byte, bool) {
	archive, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return body, false
	}
	whole := len(archive.File) <= maxEntries
	var all, names []byte
	for _, f := range archive.File[:min(len(archive.File), maxEntries)] {
		names = append(append(names, f.Name...), '\n')
		r, err := f.Open()
		if err != nil {
			whole = false
			continue
		}
		plain, ok := upTo(r, limit-len(all))
		_ = r.Close() // it was read
		all, whole = append(append(all, plain...), '\n'), whole && ok
		if len(all) >= limit {
			return all[:limit], false
		}
	}
	return append(all, names...), whole
}
