// A small reader of JSON, for examples/executorch_step.cpp. An app uses the one that it has.

#pragma once

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

struct Json {
  enum class Type { Null, Bool, Number, String, Array, Object };
  Type type = Type::Null;
  double value = 0;               // of a number; of a bool 0 or 1
  std::string text;
  std::vector<Json> items;        // of an array; of an object the values
  std::vector<std::string> keys;  // of an object, one an item

  static Json parse(const std::string& text);

  const Json* find(const std::string& key) const {
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (keys[i] == key) return &items[i];
    return nullptr;
  }
  const Json& operator[](const std::string& key) const {
    if (const Json* found = find(key)) return *found;
    throw std::runtime_error("expected the key " + key + ", found none");
  }
  template <class T>
  T number() const {
    return static_cast<T>(of(Type::Number).value);
  }
  template <class T>
  std::vector<T> numbers() const {
    std::vector<T> result;
    for (const Json& item : array()) result.push_back(item.number<T>());
    return result;
  }
  const std::string& string() const { return of(Type::String).text; }
  const std::vector<Json>& array() const { return of(Type::Array).items; }

 private:
  const Json& of(Type expected) const {
    if (type != expected) throw std::runtime_error("a value is of another type than expected");
    return *this;
  }
};

class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : start_(text.c_str()), at_(start_), end_(start_ + text.size()) {}

  Json whole() {
    Json result = value(0);
    if (next() != '\0' || at_ != end_) fail();
    return result;
  }

 private:
  static constexpr int kDepth = 64;  // recursion ends before the stack does
  const char *start_, *at_, *end_;   // the text ends with a zero

  [[noreturn]] void fail() const { throw std::runtime_error("not JSON at byte " + std::to_string(at_ - start_)); }
  char next() {
    at_ += std::strspn(at_, " \t\r\n");
    return *at_;
  }
  bool take(const char* word) {
    next();
    const bool found = std::strncmp(at_, word, std::strlen(word)) == 0;
    if (found) at_ += std::strlen(word);
    return found;
  }

  Json value(int depth) {
    if (depth > kDepth) fail();
    Json result;
    if (take("{")) {
      result.type = Json::Type::Object;
      list("}", [&] {
        result.keys.push_back(string());
        if (!take(":")) fail();
        result.items.push_back(value(depth + 1));
      });
    } else if (take("[")) {
      result.type = Json::Type::Array;
      list("]", [&] { result.items.push_back(value(depth + 1)); });
    } else if (next() == '"') {
      result.type = Json::Type::String;
      result.text = string();
    } else if (take("true") || take("false")) {
      result.type = Json::Type::Bool;
      result.value = at_[-2] == 'u';
    } else if (!take("null")) {
      char* stop = nullptr;
      result.type = Json::Type::Number;
      result.value = std::strtod(at_, &stop);
      if (stop == at_ || std::strchr("-0123456789", *at_) == nullptr) fail();
      at_ = stop;
    }
    return result;
  }

  template <class Item>
  void list(const char* close, Item item) {
    if (take(close)) return;
    do item();
    while (take(","));
    if (!take(close)) fail();
  }

  std::string string() {
    std::string result;
    if (!take("\"")) fail();
    for (; *at_ != '"'; ++at_) {
      if (static_cast<unsigned char>(*at_) < ' ') fail();
      result += *at_ == '\\' ? escaped() : *at_;
    }
    ++at_;
    return result;
  }

  char escaped() {  // ends at its last character. The files of a bundle have what is beyond ASCII as it is
    static constexpr char kNames[] = "\"\\/bfnrt", kMeanings[] = "\"\\/\b\f\n\r\t";
    const char* name = *++at_ == '\0' ? nullptr : std::strchr(kNames, *at_);
    if (name != nullptr) return kMeanings[name - kNames];
    if (std::strncmp(at_, "u00", 3) != 0 || std::isxdigit(at_[3]) == 0 || std::isxdigit(at_[4]) == 0 || at_[3] > '7') fail();
    at_ += 4;
    return static_cast<char>(std::strtol(std::string(at_ - 1, 2).c_str(), nullptr, 16));
  }
};

inline Json Json::parse(const std::string& text) { return JsonReader(text).whole(); }
