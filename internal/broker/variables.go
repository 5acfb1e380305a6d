package broker

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// prefix begins the name of every environment variable that the broker reads.
// A Kubernetes service of that name makes variables TENANTBROKER_SERVICE_…
// and TENANTBROKER_PORT…, which therefore name no key and are not refused.
const prefix = "TENANTBROKER_"

// Variable is an environment variable that overrides one key.
type Variable struct {
	Name    string // e.g. TENANTBROKER_TLS_CERT_FILE
	Key     string // e.g. tls.cert_file
	Help    string
	Default string
}

// Variables lists them, in the order of the document. The list is made from
// the document itself, so that help and code can't differ.
func Variables() []Variable {
	var all []Variable
	d := Default()
	eachKey(reflect.ValueOf(&d).Elem(), "", func(key, help string, v reflect.Value) {
		all = append(all, Variable{Name: variableName(key), Key: key, Help: help, Default: fmt.Sprint(v.Interface())})
	})
	return all
}

func variableName(key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// override sets every key whose variable lookup finds, and returns their names.
func (d *Document) override(lookup func(string) (string, bool)) (set []string, err error) {
	eachKey(reflect.ValueOf(d).Elem(), "", func(key, _ string, v reflect.Value) {
		name := variableName(key)
		text, found := lookup(name)
		if !found || err != nil {
			return
		}
		if e := setValue(v, text); e != nil {
			err = fmt.Errorf("environment %s: %w", name, e)
			return
		}
		set = append(set, name)
	})
	return set, err
}

// eachKey visits the scalar keys of a document part in order.
func eachKey(part reflect.Value, path string, visit func(key, help string, v reflect.Value)) {
	for i := range part.NumField() {
		field, v := part.Type().Field(i), part.Field(i)
		key := path + field.Tag.Get("yaml")
		if v.Kind() == reflect.Struct {
			eachKey(v, key+".", visit)
			continue
		}
		visit(key, field.Tag.Get("help"), v)
	}
}

func setValue(v reflect.Value, text string) error {
	switch v.Interface().(type) {
	case string:
		v.SetString(text)
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(int64(n))
	case time.Duration:
		t, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf(`%q is not a duration such as "5m" or "90s"`, text)
		}
		v.SetInt(int64(t))
	default:
		return fmt.Errorf("a %s can't be set by the environment", v.Type())
	}
	return nil
}
