-- One row per order. The tenant comes first in the key, so that two tenants may
-- have the same id and neither learns of the other's.
CREATE TABLE orders (
  tenant text NOT NULL,
  id     uuid NOT NULL DEFAULT gen_random_uuid(),
  note   text NOT NULL,
  PRIMARY KEY (tenant, id)
);
