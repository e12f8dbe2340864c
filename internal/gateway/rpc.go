package gateway

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An rpcMessage is a message of an upstream. It is taken apart, not judged:
// after the effect a strict reader would only lose the answer. Duplicate names
// and invalid UTF-8 are refused all the same, because the client might read
// them otherwise than we do.
type rpcMessage struct {
	JSONRPC string         `json:"jsonrpc"`
	ID      jsontext.Value `json:"id"`
	Method  string         `json:"method"`
	Params  jsontext.Value `json:"params"`
	Result  jsontext.Value `json:"result"`
	Error   jsontext.Value `json:"error"`
}

var errNotAnswer = errors.New("it is not a JSON-RPC message")

func readRPC(b []byte) (rpcMessage, error) {
	var m rpcMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("reading the upstream's message: %w", err)
	}
	if m.JSONRPC != "2.0" || m.isAnswer() == (m.Method != "") || (m.Result != nil && m.Error != nil) {
		return m, errNotAnswer
	}
	if m.Result != nil && m.Result.Kind() != '{' {
		return m, errNotAnswer
	}
	if m.Error != nil && !isRPCError(m.Error) {
		return m, errNotAnswer
	}
	return m, nil
}

func (m *rpcMessage) isAnswer() bool { return m.Result != nil || m.Error != nil }

// answers reports whether the message is the answer to the request with this
// canonical id. An error without an id answers the only request that there is.
func (m *rpcMessage) answers(id []byte) bool {
	if !m.isAnswer() {
		return false
	}
	if m.ID == nil || m.ID.Kind() == 'n' {
		return m.Error != nil
	}
	got := m.ID.Clone()
	if err := got.Canonicalize(); err != nil {
		return false
	}
	return bytes.Equal(got, id)
}

// isRPCError reports whether a value is a JSON-RPC error object.
func isRPCError(v jsontext.Value) bool {
	var e struct {
		Code    *int64  `json:"code"`
		Message *string `json:"message"`
	}
	return v.Kind() == '{' && json.Unmarshal(v, &e) == nil && e.Code != nil && e.Message != nil
}

// isToolError reports whether a result of tools/call says that the tool
// failed, and whether it is a final result at all.
func isToolError(result jsontext.Value) (failed, final bool) {
	var r struct {
		IsError    bool   `json:"isError"`
		ResultType string `json:"resultType"`
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return true, true
	}
	return r.IsError, r.ResultType == "" || r.ResultType == "complete"
}

// members returns the members of an upstream's object.
func members(object jsontext.Value) (map[string]jsontext.Value, error) {
	var m map[string]jsontext.Value
	if err := json.Unmarshal(object, &m); err != nil {
		return nil, fmt.Errorf("reading the upstream's object: %w", err)
	}
	if m == nil {
		return nil, errNotAnswer
	}
	return m, nil
}

// encodeRPC writes an answer with the id that the client gave its request.
func encodeRPC(id []byte, name string, value []byte) []byte {
	b := make([]byte, 0, len(value)+len(id)+32)
	b = append(b, `{"jsonrpc":"2.0"`...)
	if id != nil {
		b = appendMember(b, "id", id)
	}
	b = appendMember(b, name, value)
	return append(b, '}')
}

// encodeObject writes an object with its members in the order of their names.
func encodeObject(m map[string]jsontext.Value) (jsontext.Value, error) {
	b, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("writing an object: %w", err)
	}
	return b, nil
}
