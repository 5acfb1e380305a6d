package pgrotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// maxAnswer bounds what is read of an answer of Vault.
const maxAnswer = 64 << 10

// VaultKV reads the login from Vault's KV engine, where the broker publishes it:
// address is Vault's, path such as "secret/data/shared/orders". token is called
// for each read. One that reads a file written by an agent serves as well.
func VaultKV(client *http.Client, address, path string, token func() string) Source {
	return func(ctx context.Context) (Login, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/"+path, nil)
		if err != nil {
			return Login{}, err
		}
		request.Header.Set("X-Vault-Token", token())
		answer, err := client.Do(request)
		if err != nil {
			return Login{}, errors.New("vault can't be reached")
		}
		defer func() { _ = answer.Body.Close() }() // read, or given up
		if answer.StatusCode != http.StatusOK {
			return Login{}, fmt.Errorf("vault answers %s for %s", answer.Status, path)
		}
		var body struct {
			Data struct {
				Data struct {
					User     string `json:"username"`
					Password string `json:"password"`
					Version  string `json:"tenantbroker_version"`
				} `json:"data"`
			} `json:"data"`
		}
		if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&body); err != nil {
			return Login{}, errors.New("vault's answer is not a login")
		}
		l := body.Data.Data
		version, err := strconv.ParseUint(l.Version, 10, 64)
		if err != nil || l.User == "" || l.Password == "" {
			return Login{}, fmt.Errorf("%s holds no login with a version", path)
		}
		return Login{l.User, l.Password, version}, nil
	}
}
