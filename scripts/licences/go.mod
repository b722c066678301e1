// Checks the licences of what the product links; apart from go.mod so that it is none of its dependencies.
module waybill/scripts/licences

go 1.26.0

require github.com/google/licensecheck v0.3.1
