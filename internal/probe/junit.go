package probe

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// The part of JUnit's report that CI systems read.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Errors    int         `xml:"errors,attr"`
		Timestamp string      `xml:"timestamp,attr"`
		Cases     []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure,omitempty"`
		Error   *junitMessage `xml:"error,omitempty"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes the report as JUnit XML: a suite for each object, a case for
// each attempt and asker. A leak is a failure, and where strict a suspect one
// too; what is inconclusive is an error.
func (r *Report) WriteJUnit(w io.Writer, strict bool) error {
	all := junitSuites{Name: r.Service, Time: seconds(float64(r.Milliseconds))}
	at := make(map[string]int)
	for _, c := range r.Cases {
		i, ok := at[c.Object]
		if !ok {
			i = len(all.Suites)
			at[c.Object] = i
			all.Suites = append(all.Suites, junitSuite{Name: c.Object, Timestamp: r.Started.UTC().Format(time.RFC3339)})
		}
		all.Suites[i].add(r.Service, c, strict)
	}
	for _, s := range all.Suites {
		all.Tests, all.Failures, all.Errors = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (s *junitSuite) add(service string, c Case, strict bool) {
	texts := make([]string, 0, len(c.Findings))
	for _, f := range c.Findings {
		texts = append(texts, string(f.Verdict)+": "+f.Text)
	}
	j := junitCase{Class: service + "." + c.Object, Name: c.Attempt + " as " + c.As, Time: seconds(c.Milliseconds)}
	m := &junitMessage{Type: string(c.Verdict), Text: c.Request + "\n" + strings.Join(texts, "\n")}
	if len(texts) > 0 {
		m.Message = texts[0]
	}
	s.Tests++
	switch {
	case c.Verdict == Leak, c.Verdict == Suspect && strict:
		j.Failure = m
		s.Failures++
	case !c.Proves():
		j.Error = m
		s.Errors++
	default:
		j.Out = strings.Join(texts, "\n")
	}
	s.Cases = append(s.Cases, j)
}

func seconds(milliseconds float64) string { return fmt.Sprintf("%.3f", milliseconds/1000) }
