// Package proto holds the interface definitions of the hub, the code generated from them and the OpenAPI file.
package proto

import _ "embed"

// OpenAPI is the description of the REST door (OpenAPI 2, JSON), generated from the .proto files.
//
//go:embed waybill.swagger.json
var OpenAPI []byte
