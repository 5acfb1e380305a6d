package vault

import (
	"context"
	"fmt"
)

// kubernetesTokenFile is where Kubernetes puts a pod's token.
const kubernetesTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a file name

// Kubernetes logs in with the pod's service account token.
type Kubernetes struct {
	Mount   string // default kubernetes
	Role    string
	JWTFile string // default: the pod's; read again at each login, since Kubernetes renews it
}

func (Kubernetes) method() string { return "kubernetes" }

func (l Kubernetes) check() error {
	if err := required("a role", l.Role); err != nil {
		return err
	}
	return checkMount(l.Mount)
}

func (l Kubernetes) checkFiles() error { return checkWord(or(l.JWTFile, kubernetesTokenFile)) }

func (l Kubernetes) signIn(ctx context.Context, k *core) (auth, bool, error) {
	return k.withJWT(ctx, or(l.Mount, "kubernetes"), l.Role, or(l.JWTFile, kubernetesTokenFile))
}

// JWT logs in with a JWT of another platform.
type JWT struct {
	Mount   string // default jwt
	Role    string
	JWTFile string // read again at each login
}

func (JWT) method() string { return "jwt" }

func (l JWT) check() error {
	if err := required("a role", l.Role, "a file with the JWT", l.JWTFile); err != nil {
		return err
	}
	return checkMount(l.Mount)
}

func (l JWT) checkFiles() error { return checkWord(l.JWTFile) }

func (l JWT) signIn(ctx context.Context, k *core) (auth, bool, error) {
	return k.withJWT(ctx, or(l.Mount, "jwt"), l.Role, l.JWTFile)
}

func (k *core) withJWT(ctx context.Context, mount, role, file string) (auth, bool, error) {
	jwt, err := readWord(file)
	if err != nil {
		return auth{}, false, fmt.Errorf("vault: login: %w", err)
	}
	return k.authenticate(ctx, mount, map[string]any{"role": role, "jwt": jwt})
}
