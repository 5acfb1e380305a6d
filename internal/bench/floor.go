package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// serveFloor is the yardstick: a bare net/http handler that does only the
// cryptography of a token request, /verify-sign or /sign, and writes an answer
// of a token's size; or that of a check, /verify, and writes nothing, as /nothing
// does without. It prints its address and serves until it is killed.
func serveFloor() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte("the floor"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return err
	}
	answer := []byte(`{"access_token":"` + strings.Repeat("x", 640) + `","token_type":"Bearer","expires_in":300}`)

	handler := func(verify bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			if verify && !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
				http.Error(w, "verify", http.StatusInternalServerError)
				return
			}
			if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
				http.Error(w, "sign", http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(answer)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("POST /verify-sign", handler(true))
	mux.Handle("POST /sign", handler(false))
	mux.HandleFunc("GET /verify", func(w http.ResponseWriter, _ *http.Request) {
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			http.Error(w, "verify", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /nothing", func(http.ResponseWriter, *http.Request) {})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(os.Stdout, "http://%s\n", listener.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return server.Serve(listener)
}
