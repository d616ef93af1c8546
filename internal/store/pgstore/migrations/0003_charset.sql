-- The encoding of bodies that are text.
ALTER TABLE records ADD COLUMN charset text;

CREATE OR REPLACE VIEW latest AS
SELECT id, job, batch, generation, split_part(url, '/', 3) AS host, url, final_url, method, outcome, status,
       error_class, error_message, attempts, headers, content_type, bytes, sha256, body, unchanged, body_job, resumed,
       fetched_at, elapsed_ms, timings, protocol, remote_addr, redirects, worker, meta, insecure, charset
FROM records r
WHERE NOT EXISTS (
    SELECT FROM records later
    WHERE later.job = r.job AND later.id = r.id AND later.generation > r.generation AND later.generation > 0
);
