//! Invalid fields of a pool, collected while it is validated.

use url::Url;

/// An invalid field of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{field}: {problem}; fix: {fix}")]
pub struct Problem {
    /// Path of the field, such as `spec.kafka.sasl`.
    pub field: String,
    /// Why the value is invalid.
    pub problem: String,
    /// How to correct it.
    pub fix: String,
}

/// All invalid fields of a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// Problems found so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) problems: Vec<Problem>,
}

impl Checks {
    /// Records a problem and returns none.
    pub(super) fn refuse<T>(
        &mut self,
        field: &str,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Option<T> {
        self.problems.push(Problem {
            field: format!("spec.{field}"),
            problem: problem.into(),
            fix: fix.into(),
        });
        None
    }

    /// Converts an integer, or records that it is out of range.
    pub(super) fn integer<T: TryFrom<i64>>(
        &mut self,
        field: &str,
        value: i64,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<T> {
        let fits = range.contains(&value).then(|| T::try_from(value).ok()).flatten();
        fits.or_else(|| {
            let (min, max) = range.into_inner();
            let fix = format!("choose {min} to {max}");
            self.refuse(field, format!("{value} is out of range"), fix)
        })
    }

    /// The same for an optional field; the outer `None` after a problem.
    pub(super) fn optional_integer<T: TryFrom<i64>>(
        &mut self,
        field: &str,
        value: Option<i32>,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<Option<T>> {
        match value {
            None => Some(None),
            Some(value) => self.integer(field, value.into(), range).map(Some),
        }
    }

    /// Records a URL that workers refuse.
    pub(super) fn http_url(&mut self, field: &str, url: Option<&str>) {
        if let Some(url) = url.filter(|url| !is_http(url)) {
            let problem = format!("`{url}` is not an http(s) URL");
            let fix = "write https://host or https://host:port, without a query or fragment";
            let _: Option<()> = self.refuse(field, problem, fix);
        }
    }
}

/// Whether a text is an http(s) URL with a host, and without a query and a fragment. The parser ignores white space.
fn is_http(text: &str) -> bool {
    let url = Url::parse(text)
        .ok()
        .filter(|_| !text.contains(char::is_whitespace));
    url.is_some_and(|url| {
        let has_more = url.query().is_some() || url.fragment().is_some();
        matches!(url.scheme(), "http" | "https") && url.has_host() && !has_more
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_workers_accept_are_accepted() {
        for url in [
            "https://songs.example",
            "http://10.0.0.1:8000/base",
            "https://[::1]:443/",
        ] {
            assert!(is_http(url), "{url}");
        }
        for url in [
            "songs.example",
            "s3:9000",
            "ftp://songs.example",
            "https://",
            "https://songs.example:99999",
            "https://songs.example:port",
            "https://songs.example/?a=1",
            "https://songs.example/#a",
            "https://songs example",
            " https://songs.example",
        ] {
            assert!(!is_http(url), "{url}");
        }
    }
}
