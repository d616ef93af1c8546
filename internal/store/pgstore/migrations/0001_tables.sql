-- What fetchfleet keeps, all of it in one schema. A unit is what one batch left: its row in units makes it exist, and
-- comes in one transaction with its records and bodies. Tables that analysts need: jobs, units, records, latest.

CREATE TABLE identity (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id       text NOT NULL
);

CREATE TABLE jobs (
    job        text COLLATE "C" PRIMARY KEY,
    first_seen timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE units (
    job          text COLLATE "C" NOT NULL,
    unit         text COLLATE "C" NOT NULL, -- the batch, with ".G" for a replay
    key          uuid NOT NULL UNIQUE,      -- of its records and bodies
    account      json NOT NULL,             -- json keeps the text as it was given, jsonb would not
    records      integer NOT NULL,          -- how many there are
    committed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, unit)
);

CREATE TABLE records (
    unit_key      uuid NOT NULL,
    n             integer NOT NULL, -- place in the unit, from 0
    id            text COLLATE "C" NOT NULL,
    job           text COLLATE "C" NOT NULL,
    batch         text COLLATE "C" NOT NULL,
    generation    integer NOT NULL,
    url           text NOT NULL,
    final_url     text,
    method        text NOT NULL,
    outcome       text NOT NULL,
    status        integer,
    error_class   text,
    error_message text,
    attempts      integer NOT NULL,
    headers       jsonb,
    content_type  text,
    bytes         bigint NOT NULL,
    sha256        text,
    body          text, -- "KEY.N": rows of bodies with owner KEY and body N
    unchanged     boolean NOT NULL,
    body_job      text,
    resumed       integer NOT NULL DEFAULT 0, -- how often the transfer of the body was cut and went on
    fetched_at    timestamptz NOT NULL,
    fetched_ns    smallint NOT NULL, -- nanoseconds beyond fetched_at, 0 to 999
    elapsed_ms    double precision NOT NULL,
    timings       jsonb,
    protocol      text,
    remote_addr   text,
    redirects     jsonb,
    worker        text NOT NULL,
    meta          json,
    exact         bytea, -- the record as JSON, where the columns cannot hold it (a NUL, say); it then counts
    PRIMARY KEY (unit_key, n)
);

-- Replays are few, so this index is small, and it is all that the view needs.
CREATE INDEX records_replayed ON records (job, id, generation) WHERE generation > 0;

CREATE VIEW latest AS
SELECT id, job, batch, generation, split_part(url, '/', 3) AS host, url, final_url, method, outcome, status,
       error_class, error_message, attempts, headers, content_type, bytes, sha256, body, unchanged, body_job, resumed,
       fetched_at, elapsed_ms, timings, protocol, remote_addr, redirects, worker, meta
FROM records r
WHERE NOT EXISTS (
    SELECT FROM records later
    WHERE later.job = r.job AND later.id = r.id AND later.generation > r.generation AND later.generation > 0
);

-- Units that have bodies here and are not committed yet.
CREATE TABLE writing (
    owner    uuid PRIMARY KEY,
    job      text COLLATE "C" NOT NULL,
    worker   text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT now()
);

-- Bodies in rows of up to 1 MiB. The owner is a unit's key, or a part's. A body exists once its unit does.
CREATE TABLE bodies (
    owner uuid NOT NULL,
    body  integer NOT NULL,
    n     integer NOT NULL,
    data  bytea NOT NULL,
    PRIMARY KEY (owner, body, n)
) WITH (toast_tuple_target = 8160);
ALTER TABLE bodies ALTER data SET STORAGE EXTERNAL;

-- The beginnings of large bodies whose transfer was cut; their bytes are rows of bodies with owner = key, body = 0.
CREATE TABLE parts (
    job        text COLLATE "C" NOT NULL,
    request    text COLLATE "C" NOT NULL,
    key        uuid NOT NULL,
    note       json,
    size       bigint NOT NULL DEFAULT 0,
    rows       integer NOT NULL DEFAULT 0,
    digest     bytea,            -- the state of SHA-256 after size bytes
    holder     uuid,             -- in whose hands it is
    held_until timestamptz NOT NULL DEFAULT '-infinity',
    touched_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, request)
);
