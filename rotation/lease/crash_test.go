package lease

const childEnv = "TENANTBROKER_LEASE_CHILD"

func childMain(string) int { return 1 }
