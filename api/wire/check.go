package wire

// PathCheck is where a proxy asks about the token of a request that it holds.
const PathCheck = "/v1/check"
