-- Versions of a notification against the one with the most deliveries.
--
-- Days and applications differ more than versions do: only those that have both versions count, and `difference` is
-- the mean of the differences inside each (Mantel-Haenszel), which need not be that of the two rates.
WITH versions AS (
    SELECT
        *, sum(hit_rate.denominator) OVER (PARTITION BY activation_id, activation_version) AS of_version
    FROM cohorts
    WHERE status = 'final' AND hit_rate.numerator <= hit_rate.denominator
),
baselines AS (
    SELECT * FROM versions
    QUALIFY dense_rank() OVER (PARTITION BY activation_id ORDER BY of_version DESC, activation_version NULLS LAST) = 1
),
pairs AS (
    SELECT
        versions.activation_id, versions.name, versions.activation_version AS version,
        baselines.activation_version AS baseline, versions.activation_date,
        versions.hit_rate, baselines.hit_rate AS baseline_hit_rate,
        versions.hit_rate.numerator AS hits, versions.hit_rate.denominator AS n,
        baselines.hit_rate.numerator AS baseline_hits, baselines.hit_rate.denominator AS baseline_n
    FROM versions JOIN baselines
      ON versions.activation_id = baselines.activation_id
     AND versions.activation_version IS DISTINCT FROM baselines.activation_version
     AND versions.activation_date = baselines.activation_date
     AND versions.agency IS NOT DISTINCT FROM baselines.agency
     AND versions.customer IS NOT DISTINCT FROM baselines.customer
     AND versions.application_id IS NOT DISTINCT FROM baselines.application_id
)
SELECT
    name,
    version,
    baseline,
    count(DISTINCT activation_date) AS days,
    denominator(hit_rate) AS delivered,
    rate(hit_rate) AS hit_rate,
    denominator(baseline_hit_rate) AS baseline_delivered,
    rate(baseline_hit_rate) AS baseline_hit_rate,
    sum((hits * baseline_n - baseline_hits * n) / (n + baseline_n)) / sum(n * baseline_n / (n + baseline_n))
        AS difference
FROM pairs
GROUP BY activation_id, name, version, baseline
ORDER BY name, delivered DESC, version;
