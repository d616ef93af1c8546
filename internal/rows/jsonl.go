package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ParseObject reads one line of JSON Lines: an object whose values are strings, numbers, true, false or null, which is
// undefined.
func ParseObject(line []byte) (Row, error) {
	if !utf8.Valid(line) {
		return Row{}, errors.New("the JSON is not UTF-8")
	}
	if !json.Valid(line) {
		var v any
		return Row{}, fmt.Errorf("bad JSON: %w", json.Unmarshal(line, &v))
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if t, _ := d.Token(); t != json.Delim('{') {
		return Row{}, errors.New(`a row must be an object like {"id": 7}`)
	}
	var row Row
	for d.More() {
		name, _ := d.Token() // it is valid
		v, err := d.Token()
		if err != nil {
			return Row{}, fmt.Errorf("bad JSON: %w", err)
		}
		value, ok := scalar(v)
		if !ok {
			return Row{}, fmt.Errorf("column %.60q holds a list or an object: a value is text, a number, true, false or null", name)
		}
		if _, twice := row.Get(name.(string)); twice {
			return Row{}, fmt.Errorf("column %.60q is there twice", name)
		}
		row.Names = append(row.Names, name.(string))
		row.Values = append(row.Values, value)
	}
	return row, nil
}

func scalar(t json.Token) (Value, bool) {
	switch v := t.(type) {
	case nil:
		return Value{}, true
	case string:
		return Value{String, v}, true
	case json.Number:
		return Value{Number, v.String()}, true
	case bool:
		if v {
			return Value{Bool, "true"}, true
		}
		return Value{Bool, "false"}, true
	}
	return Value{}, false
}
