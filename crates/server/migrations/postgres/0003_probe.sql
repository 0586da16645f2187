-- One row that is written to find out whether writing works again.
CREATE TABLE probe (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    rounds BIGINT  NOT NULL
);
